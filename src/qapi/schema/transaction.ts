/** Several actions, all or none. The notation is told in ../notation.ts. */
export const TRANSACTION = `
command transaction { actions: [TransactionAction], properties?: TransactionProperties }

union TransactionAction by type { type: TransactionActionKind } of {
  abort: AbortWrapper, block-dirty-bitmap-add: BlockDirtyBitmapAddWrapper, block-dirty-bitmap-remove: BlockDirtyBitmapWrapper,
  block-dirty-bitmap-clear: BlockDirtyBitmapWrapper, block-dirty-bitmap-enable: BlockDirtyBitmapWrapper,
  block-dirty-bitmap-disable: BlockDirtyBitmapWrapper, block-dirty-bitmap-merge: BlockDirtyBitmapMergeWrapper,
  blockdev-backup: BlockdevBackupWrapper, blockdev-snapshot: BlockdevSnapshotWrapper,
  blockdev-snapshot-internal-sync: BlockdevSnapshotInternalWrapper, blockdev-snapshot-sync: BlockdevSnapshotSyncWrapper,
  drive-backup: DriveBackupWrapper
}
struct TransactionProperties { completion-mode?: ActionCompletionMode }
enum TransactionActionKind {
  abort, block-dirty-bitmap-add, block-dirty-bitmap-remove, block-dirty-bitmap-clear, block-dirty-bitmap-enable,
  block-dirty-bitmap-disable, block-dirty-bitmap-merge, blockdev-backup, blockdev-snapshot, blockdev-snapshot-internal-sync,
  blockdev-snapshot-sync, drive-backup !deprecated
}
struct AbortWrapper { data: Abort }
struct BlockDirtyBitmapAddWrapper { data: BlockDirtyBitmapAdd }
struct BlockDirtyBitmapWrapper { data: BlockDirtyBitmap }
struct BlockDirtyBitmapMergeWrapper { data: BlockDirtyBitmapMerge }
struct BlockdevBackupWrapper { data: BlockdevBackup }
struct BlockdevSnapshotWrapper { data: BlockdevSnapshot }
struct BlockdevSnapshotInternalWrapper { data: BlockdevSnapshotInternal }
struct BlockdevSnapshotSyncWrapper { data: BlockdevSnapshotSync }
struct DriveBackupWrapper { data: DriveBackup }
enum ActionCompletionMode { individual, grouped }
struct Abort {}
`;
