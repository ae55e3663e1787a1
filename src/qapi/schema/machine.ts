/**
 * What QEMU's machines have and its storage daemon has not: served, and in no list, so that the lists stay the storage
 * daemon's. `vm-state` is ours. The notation is told in ../notation.ts.
 */
export const MACHINE = `
command snapshot-save { job-id: str, tag: str, vmstate: str, devices: [str], vm-state?: SocketAddress }
command snapshot-load { job-id: str, tag: str, vmstate: str, devices: [str], vm-state?: SocketAddress }
command snapshot-delete { job-id: str, tag: str, devices: [str] }
`;
