import Testing
import Ublk

@testable import DeviceServer

struct ZeroCopyChoiceTests {
    private static let able: UblkFeatures = [.userRecovery, .userCopy, .autoBufferRegistration]

    private static func features(
        _ choice: ZeroCopyChoice, offered: UblkFeatures?, takesPages: Bool = true
    ) throws -> UblkFeatures {
        var configuration = ServerConfiguration(imagePath: "image.qed")
        configuration.zeroCopy = choice
        return try configuration.features(offered: offered, takesPages: takesPages)
    }

    @Test(arguments: ZeroCopyChoice.allCases)
    func recoveryIsAskedForWhateverTheChoice(choice: ZeroCopyChoice) throws {
        let features = try Self.features(choice, offered: Self.able)
        #expect(features.isSuperset(of: [.userRecovery, .recoveryReissue]))
        #expect(features.contains(.servesPages) == (choice != .off))
        #expect(features.contains(.userCopy) == (choice != .off))
    }

    /// The second has one half, as Linux 6.12 does.
    @Test(arguments: [nil, [.userRecovery, .userCopy], [.userRecovery, .autoBufferRegistration], []] as [UblkFeatures?])
    func kernelsThatCannotCopyOrRefuse(offered: UblkFeatures?) throws {
        #expect(try Self.features(.auto, offered: offered).isDisjoint(with: .servesPages))
        #expect(try Self.features(.off, offered: offered).isDisjoint(with: .servesPages))
        let error = #expect(throws: ServerError.self) { try Self.features(.on, offered: offered) }
        #expect(error.map { "\($0)" }?.contains("Linux 6.16") == true)
    }

    @Test func filesBehindThePageCacheAreCopiedUnlessAskedFor() throws {
        #expect(try Self.features(.auto, offered: Self.able, takesPages: false).isDisjoint(with: .servesPages))
        #expect(try Self.features(.on, offered: Self.able, takesPages: false).contains(.servesPages))
    }

    /// Then `add` knows when their nodes are there.
    @Test func thePartitionTableIsReadByTheServerWhereTheKernelLeavesItToIt() throws {
        #expect(try Self.features(.auto, offered: [.userRecovery, .noPartitionScan]).contains(.noPartitionScan))
        for offered in [nil, Self.able] as [UblkFeatures?] {
            #expect(try !Self.features(.auto, offered: offered).contains(.noPartitionScan))
        }
    }
}
