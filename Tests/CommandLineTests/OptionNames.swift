import ArgumentParser

@testable import qed_ublk

/// The options that a command has, as its help lists them.
enum OptionNames {
    static func of(_ command: any ParsableCommand.Type) -> Set<String> {
        let lines = QedUblk.helpMessage(for: command, columns: 500).split(separator: "\n")
        let names = lines.compactMap { line -> String? in
            guard line.hasPrefix("  -") else { return nil }
            return line.split(whereSeparator: { " ,<[/".contains($0) }).map(String.init).first { $0.hasPrefix("--") }
        }
        return Set(names).subtracting(["--help", "--version"])
    }
}
