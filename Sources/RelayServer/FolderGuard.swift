internal import Glibc
internal import Volumes

/// Looks at the way to a file of an allowed folder: a link on it could lead anywhere.
///
/// Whoever may write into the folder on this host could change it afterwards; clients can't, as a receiver makes
/// neither folders nor links.
enum FolderGuard {
    /// What stands beside an unfinished file (`FileTarget`).
    private static let suffixes = ["", ".godwit-unfinished", ".godwit-record", ".godwit-record-new", ".godwit-holder"]

    /// Whether the folders on the way are folders, and the file and what belongs to it are regular files or not there.
    ///
    /// - Parameter folder: The allowed one, which was looked at when the receiver began (`resolved`).
    static func isPlain(_ path: FilePath, below folder: [String]) -> Bool {
        var names = folder
        for name in path.names.dropFirst(folder.count).dropLast() {
            names.append(name)
            guard mode(FilePath(names: names).text) == S_IFDIR else { return false }
        }
        return suffixes.allSatisfy { suffix in
            let found = mode(path.text + suffix)
            return found == nil || found == S_IFREG
        }
    }

    /// The folder as it is found without links, once and for all.
    ///
    /// - Returns: Nothing if there is no such folder.
    static func resolved(_ folder: [String]) -> [String]? {
        let path = FilePath(names: folder).text
        guard let found = unsafe realpath(path, nil) else { return nil }
        defer { unsafe free(found) }
        let text = unsafe String(cString: found)
        guard mode(text) == S_IFDIR else { return nil }
        return text == "/" ? [] : FilePath(text)?.names
    }

    /// What kind of file it is, without following a link (inode(7)); nothing if it isn't there, or can't be seen.
    private static func mode(_ path: String) -> mode_t? {
        var status = stat()
        return unsafe lstat(path, &status) == 0 ? status.st_mode & S_IFMT : nil
    }
}
