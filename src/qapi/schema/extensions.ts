/**
 * What is ours: names begin with `x-quiesce-`, but for `block-job-change`, which later versions of QEMU have, and the event
 * of a mirror in copy mode `auto`. Times are in milliseconds. The notation is told in ../notation.ts.
 */
export const EXTENSIONS = `
command x-quiesce-vm-state-receive {
  node-name: str, also?: [str], name: str, replace?: bool, chunk-size?: size, depth?: uint16
} -> XQuiesceVmStateSocket
command x-quiesce-vm-state-cancel { node-name: str } -> XQuiesceVmStateEnd
command x-quiesce-snapshot-create {
  node-name: str, also?: [str], name: str, replace?: bool, vm-state-size?: size, take-vm-state?: bool, vm-clock-nsec?: uint64,
  icount?: uint64
} -> XQuiesceSnapshot
command x-quiesce-trace-start { file: str, ring-size?: size, watcher?: str }
command x-quiesce-trace-stop -> XQuiesceTrace
command x-quiesce-query-trace -> XQuiesceTrace
struct XQuiesceTrace { recording: bool, files?: [str], events?: int, dropped?: int, bytes?: int, error?: str }
struct XQuiesceVmStateSocket { path: str }
struct XQuiesceVmStateEnd { error?: str }
extend q_obj_blockdev-mirror-arg {
  x-quiesce-bitmap?: str, x-quiesce-target-is-zero?: bool, x-quiesce-unmap?: bool, x-quiesce-operations?: uint16,
  x-quiesce-copy-mode?: XQuiesceCopyMode, x-quiesce-deadline?: uint32, x-quiesce-max-guest-latency?: uint32,
  x-quiesce-throttle-below?: size, x-quiesce-min-guest-rate?: size,
  x-quiesce-verify?: bool
}
enum XQuiesceCopyMode { background, write-blocking, auto }
event BLOCK_JOB_PHASE {
  device: str, phase: XQuiesceMirrorPhase, copy-mode: MirrorCopyMode, dirty: int, copy-rate: int, dirty-rate: int,
  guest-rate?: int, eta?: int, deadline?: int, converges?: bool
}
enum XQuiesceMirrorPhase { bulk, converge, sync, ready }
command block-job-change: XQuiesceBlockJobChange
union XQuiesceBlockJobChange by type { id: str, type: JobType } of { mirror: XQuiesceBlockJobChangeMirror }
struct XQuiesceBlockJobChangeMirror { copy-mode: XQuiesceCopyMode }
struct XQuiesceSnapshot { snapshot: SnapshotInfo, also?: [SnapshotInfo], pause-nsec: int }
`;
