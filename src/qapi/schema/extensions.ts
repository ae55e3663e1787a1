/** What is ours: names begin with `x-quiesce-`. The notation is told in ../notation.ts. */
export const EXTENSIONS = `
command x-quiesce-vm-state-receive {
  node-name: str, also?: [str], name: str, replace?: bool, chunk-size?: size, depth?: uint16
} -> XQuiesceVmStateSocket
command x-quiesce-vm-state-cancel { node-name: str } -> XQuiesceVmStateEnd
command x-quiesce-snapshot-create {
  node-name: str, also?: [str], name: str, replace?: bool, vm-state-size?: size, take-vm-state?: bool, vm-clock-nsec?: uint64,
  icount?: uint64
} -> XQuiesceSnapshot
command x-quiesce-block-job-change { id: str, copy-mode?: MirrorCopyMode }
struct XQuiesceVmStateSocket { path: str }
struct XQuiesceVmStateEnd { error?: str }
struct XQuiesceSnapshot { snapshot: SnapshotInfo, also?: [SnapshotInfo], pause-nsec: int }
`;
