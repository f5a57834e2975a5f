/// Columns for people, two spaces apart; the last one is as long as it is.
enum TextTable {
    static func lines(_ rows: [[String]]) -> String {
        let widths = (rows.first ?? []).indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        return rows.map { row in
            var line = ""
            for (cell, width) in zip(row.dropLast(), widths) {
                line += cell + String(repeating: " ", count: width - cell.count + 2)
            }
            return line + (row.last ?? "")
        }.joined(separator: "\n")
    }
}
