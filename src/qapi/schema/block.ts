/** Block nodes: what they are made of, what is asked of them, and jobs over them. The notation is told in ../notation.ts. */
export const BLOCK = `
command query-block -> [BlockInfo]
command query-blockstats { query-nodes?: bool } -> [BlockStats]
command query-block-jobs -> [BlockJobInfo]
command block_resize { device?: str, node-name?: str, size: int }
command blockdev-snapshot-sync: BlockdevSnapshotSync
command blockdev-snapshot: BlockdevSnapshot !allow-write-only-overlay
command change-backing-file { device: str, image-node-name: str, backing-file: str }
command block-commit {
  job-id?: str, device: str, base-node?: str, base?: str !deprecated, top-node?: str, top?: str !deprecated,
  backing-file?: str, speed?: int, on-error?: BlockdevOnError, filter-node-name?: str, auto-finalize?: bool,
  auto-dismiss?: bool
}
command drive-backup: DriveBackup !deprecated
command blockdev-backup: BlockdevBackup
command query-named-block-nodes { flat?: bool } -> [BlockDeviceInfo]
command x-debug-query-block-graph -> XDbgBlockGraph !unstable
command drive-mirror: DriveMirror
command block-dirty-bitmap-add: BlockDirtyBitmapAdd
command block-dirty-bitmap-remove: BlockDirtyBitmap
command block-dirty-bitmap-clear: BlockDirtyBitmap
command block-dirty-bitmap-enable: BlockDirtyBitmap
command block-dirty-bitmap-disable: BlockDirtyBitmap
command block-dirty-bitmap-merge: BlockDirtyBitmapMerge
command x-debug-block-dirty-bitmap-sha256: BlockDirtyBitmap -> BlockDirtyBitmapSha256 !unstable
command blockdev-mirror {
  job-id?: str, device: str, target: str, replaces?: str, sync: MirrorSyncMode, speed?: int, granularity?: uint32,
  buf-size?: int, on-source-error?: BlockdevOnError, on-target-error?: BlockdevOnError, filter-node-name?: str,
  copy-mode?: MirrorCopyMode, auto-finalize?: bool, auto-dismiss?: bool
}
command block-stream {
  job-id?: str, device: str, base?: str, base-node?: str, backing-file?: str, bottom?: str, speed?: int,
  on-error?: BlockdevOnError, filter-node-name?: str, auto-finalize?: bool, auto-dismiss?: bool
}
command block-job-set-speed { device: str, speed: int }
command block-job-cancel { device: str, force?: bool }
command block-job-pause { device: str }
command block-job-resume { device: str }
command block-job-complete { device: str }
command block-job-dismiss { id: str }
command block-job-finalize { id: str }
command blockdev-add: BlockdevOptions
command blockdev-reopen { options: [BlockdevOptions] }
command blockdev-del { node-name: str }
command blockdev-create { job-id: str, options: BlockdevCreateOptions }
command x-blockdev-amend { job-id: str, node-name: str, options: BlockdevAmendOptions, force?: bool } !unstable
event BLOCK_IMAGE_CORRUPTED { device: str, node-name?: str, msg: str, offset?: int, size?: int, fatal: bool }
event BLOCK_IO_ERROR {
  device: str, node-name?: str, operation: IoOperationType, action: BlockErrorAction, nospace?: bool, reason: str
}
event BLOCK_JOB_COMPLETED { type: JobType, device: str, len: int, offset: int, speed: int, error?: str }
event BLOCK_JOB_CANCELLED { type: JobType, device: str, len: int, offset: int, speed: int }
event BLOCK_JOB_ERROR { device: str, operation: IoOperationType, action: BlockErrorAction }
event BLOCK_JOB_READY { type: JobType, device: str, len: int, offset: int, speed: int }
event BLOCK_JOB_PENDING { type: JobType, id: str }
event BLOCK_WRITE_THRESHOLD { node-name: str, amount-exceeded: uint64, write-threshold: uint64 }
command block-set-write-threshold { node-name: str, write-threshold: uint64 }
command x-blockdev-change { parent: str, child?: str, node?: str } !unstable
command x-blockdev-set-iothread { node-name: str, iothread: StrOrNull, force?: bool } !unstable
event QUORUM_FAILURE { reference: str, sector-num: int, sectors-count: int }
event QUORUM_REPORT_BAD { type: QuorumOpType, error?: str, node-name: str, sector-num: int, sectors-count: int }
command blockdev-snapshot-internal-sync: BlockdevSnapshotInternal
command blockdev-snapshot-delete-internal-sync { device: str, id?: str, name?: str } -> SnapshotInfo

struct BlockInfo {
  device: str, qdev?: str, type: str, removable: bool, locked: bool, inserted?: BlockDeviceInfo, tray_open?: bool,
  io-status?: BlockDeviceIoStatus
}
struct BlockStats {
  device?: str, qdev?: str, node-name?: str, stats: BlockDeviceStats, driver-specific?: BlockStatsSpecific,
  parent?: BlockStats, backing?: BlockStats
}
struct BlockJobInfo {
  type: str, device: str, len: int, offset: int, busy: bool, paused: bool, speed: int, io-status: BlockDeviceIoStatus,
  ready: bool, status: JobStatus, auto-finalize: bool, auto-dismiss: bool, error?: str
}
struct BlockdevSnapshotSync {
  device?: str, node-name?: str, snapshot-file: str, snapshot-node-name?: str, format?: str, mode?: NewImageMode
}
struct BlockdevSnapshot { node: str, overlay: str }
struct DriveBackup: BackupCommon { x-perf?: BackupPerf !unstable, target: str, format?: str, mode?: NewImageMode }
struct BlockdevBackup: BackupCommon { x-perf?: BackupPerf !unstable, target: str }
struct BlockDeviceInfo {
  file: str, node-name?: str, ro: bool, drv: str, backing_file?: str, backing_file_depth: int, encrypted: bool,
  detect_zeroes: BlockdevDetectZeroesOptions, bps: int, bps_rd: int, bps_wr: int, iops: int, iops_rd: int, iops_wr: int,
  image: ImageInfo, bps_max?: int, bps_rd_max?: int, bps_wr_max?: int, iops_max?: int, iops_rd_max?: int, iops_wr_max?: int,
  bps_max_length?: int, bps_rd_max_length?: int, bps_wr_max_length?: int, iops_max_length?: int, iops_rd_max_length?: int,
  iops_wr_max_length?: int, iops_size?: int, group?: str, cache: BlockdevCacheInfo, write_threshold: int,
  dirty-bitmaps?: [BlockDirtyInfo]
}
struct XDbgBlockGraph { nodes: [XDbgBlockGraphNode], edges: [XDbgBlockGraphEdge] }
struct DriveMirror {
  job-id?: str, device: str, target: str, format?: str, node-name?: str, replaces?: str, sync: MirrorSyncMode,
  mode?: NewImageMode, speed?: int, granularity?: uint32, buf-size?: int, on-source-error?: BlockdevOnError,
  on-target-error?: BlockdevOnError, unmap?: bool, copy-mode?: MirrorCopyMode, auto-finalize?: bool, auto-dismiss?: bool
}
struct BlockDirtyBitmapAdd { node: str, name: str, granularity?: uint32, persistent?: bool, disabled?: bool }
struct BlockDirtyBitmap { node: str, name: str }
struct BlockDirtyBitmapMerge { node: str, target: str, bitmaps: [BlockDirtyBitmapOrStr] }
struct BlockDirtyBitmapSha256 { sha256: str }
struct BlockdevSnapshotInternal { device: str, name: str }
enum BlockDeviceIoStatus { ok, failed, nospace }
struct BlockDeviceStats {
  rd_bytes: int, wr_bytes: int, unmap_bytes: int, rd_operations: int, wr_operations: int, flush_operations: int,
  unmap_operations: int, rd_total_time_ns: int, wr_total_time_ns: int, flush_total_time_ns: int, unmap_total_time_ns: int,
  wr_highest_offset: int, rd_merged: int, wr_merged: int, unmap_merged: int, idle_time_ns?: int, failed_rd_operations: int,
  failed_wr_operations: int, failed_flush_operations: int, failed_unmap_operations: int, invalid_rd_operations: int,
  invalid_wr_operations: int, invalid_flush_operations: int, invalid_unmap_operations: int, account_invalid: bool,
  account_failed: bool, timed_stats: [BlockDeviceTimedStats], rd_latency_histogram?: BlockLatencyHistogramInfo,
  wr_latency_histogram?: BlockLatencyHistogramInfo, flush_latency_histogram?: BlockLatencyHistogramInfo
}
union BlockStatsSpecific by driver { driver: BlockdevDriver } of {
  file: BlockStatsSpecificFile, host_device: BlockStatsSpecificFile, nvme: BlockStatsSpecificNvme
}
enum NewImageMode { existing, absolute-paths }
enum BlockdevOnError { report, ignore, enospc, stop, auto }
enum MirrorSyncMode { top, full, none, incremental, bitmap }
enum BitmapSyncMode { on-success, never, always }
struct BackupPerf { use-copy-range?: bool, max-workers?: int, max-chunk?: int64 }
struct BlockdevCacheInfo { writeback: bool, direct: bool, no-flush: bool }
struct BlockDirtyInfo {
  name?: str, count: int, granularity: uint32, recording: bool, busy: bool, persistent: bool, inconsistent?: bool
}
struct XDbgBlockGraphNode { id: uint64, type: XDbgBlockGraphNodeType, name: str }
struct XDbgBlockGraphEdge { parent: uint64, child: uint64, name: str, perm: [BlockPermission], shared-perm: [BlockPermission] }
enum MirrorCopyMode { background, write-blocking }
alternate BlockDirtyBitmapOrStr { local: str, external: BlockDirtyBitmap }
enum IoOperationType { read, write }
enum BlockErrorAction { ignore, report, stop }
enum QuorumOpType { read, write, flush }
struct BlockDeviceTimedStats {
  interval_length: int, min_rd_latency_ns: int, max_rd_latency_ns: int, avg_rd_latency_ns: int, min_wr_latency_ns: int,
  max_wr_latency_ns: int, avg_wr_latency_ns: int, min_flush_latency_ns: int, max_flush_latency_ns: int,
  avg_flush_latency_ns: int, avg_rd_queue_depth: number, avg_wr_queue_depth: number
}
struct BlockLatencyHistogramInfo { boundaries: [uint64], bins: [uint64] }
struct BlockStatsSpecificFile { discard-nb-ok: uint64, discard-nb-failed: uint64, discard-bytes-ok: uint64 }
struct BlockStatsSpecificNvme { completion-errors: uint64, aligned-accesses: uint64, unaligned-accesses: uint64 }
enum XDbgBlockGraphNodeType { block-backend, block-job, block-driver }
enum BlockPermission { consistent-read, write, write-unchanged, resize }
struct BackupCommon {
  job-id?: str, device: str, sync: MirrorSyncMode, speed?: int, bitmap?: str, bitmap-mode?: BitmapSyncMode, compress?: bool,
  on-source-error?: BlockdevOnError, on-target-error?: BlockdevOnError, auto-finalize?: bool, auto-dismiss?: bool,
  filter-node-name?: str
}
`;
