/** Exports, and the NBD server. The notation is told in ../notation.ts. */
export const EXPORT = `
command nbd-server-start { addr: SocketAddressLegacy, tls-creds?: str, tls-authz?: str, max-connections?: uint32 }
command nbd-server-add: NbdServerAddOptions !deprecated
command nbd-server-remove { name: str, mode?: BlockExportRemoveMode } !deprecated
command nbd-server-stop
command block-export-add: BlockExportOptions
command block-export-del { id: str, mode?: BlockExportRemoveMode }
event BLOCK_EXPORT_DELETED { id: str }
command query-block-exports -> [BlockExportInfo]

struct NbdServerAddOptions { name?: str, description?: str, device: str, writable?: bool, bitmap?: str }
union BlockExportOptions by type {
  type: BlockExportType, id: str, fixed-iothread?: bool, iothread?: str, node-name: str, writable?: bool, writethrough?: bool
} of {
  nbd: BlockExportOptionsNbd, vhost-user-blk: BlockExportOptionsVhostUserBlk, fuse: BlockExportOptionsFuse,
  vduse-blk: BlockExportOptionsVduseBlk
}
struct BlockExportInfo { id: str, type: BlockExportType, node-name: str, shutting-down: bool }
enum BlockExportRemoveMode { safe, hard }
enum BlockExportType { nbd, vhost-user-blk, fuse, vduse-blk }
struct BlockExportOptionsNbd { name?: str, description?: str, bitmaps?: [BlockDirtyBitmapOrStr], allocation-depth?: bool }
struct BlockExportOptionsVhostUserBlk { addr: SocketAddress, logical-block-size?: size, num-queues?: uint16 }
struct BlockExportOptionsFuse { mountpoint: str, growable?: bool, allow-other?: FuseExportAllowOther }
struct BlockExportOptionsVduseBlk { name: str, num-queues?: uint16, queue-size?: uint16, logical-block-size?: size, serial?: str }
enum FuseExportAllowOther { off, on, auto }
`;
