/** The public API. Command line, interop tests and benches import this file only. */
export { BlockError, errnoOf, messageOf, wrapHostError, type ErrorCode } from './base/errors.js';
export { parseKeyval, parseKeyvalOrHelp, type Keyval, type KeyvalObject } from './base/keyval.js';
export { formatSize, parseSize } from './base/bytes.js';
export { BufferPool, type Lease } from './base/buffer-pool.js';
export { capabilities, type Capabilities } from './base/libc.js';
export { Random, systemClock, type Clock } from './base/clock.js';
export { BlockBackend } from './block/backend.js';
export { BlockChild, type ChildRole } from './block/child.js';
export type {
  BlockDriver, BlockLimits, BlockStatus, CheckOptions, CheckResult, CreateSnapshot, InfoValue, Preallocation, SnapshotInfo, SnapshotTable, VmStateArea, VmStateSource,
} from './block/driver.js';
export {
  addBitmap, clearBitmap, disableBitmap, enableBitmap, findBitmap, mergeBitmaps, prepareRemoveBitmap, removeBitmap,
  type AddBitmapOptions, type BitmapSource, type Undo,
} from './block/bitmap-verbs.js';
export { DirtyBitmap, type DirtyBitmapInfo } from './block/dirty-bitmap.js';
export { DirtyBitmaps, type BitmapStore, type WriteObserver } from './block/dirty-bitmaps.js';
export { BlockGraph, type GraphChange } from './block/graph.js';
export { Permission, permissionNames, type EdgeUse, type NodeUser } from './block/permissions.js';
export { BlockNode, type DetectZeroes } from './block/node.js';
export { resizeNode } from './block/resize.js';
export { makeRequest, RequestFlag, type BlockRequest } from './block/request.js';
export { chainStatus, type ChainStatus } from './block/status.js';
export { ThrottleGroup, type ThrottleMember } from './block/throttle.js';
export type { ThrottleLimitName, ThrottleLimits } from './block/throttle-limits.js';
export { BlkdebugDriver, parseBlkdebugName, readBlkdebugConfig, type BlkdebugOptions } from './filter/blkdebug.js';
export { isSuspended, removeBreakpoint, resumeRequest, setBreakpoint, whenSuspended } from './filter/breakpoints.js';
export { makeRule as makeBlkdebugRule, parseBlkdebugConfig, type BlkdebugRule } from './filter/blkdebug-rules.js';
export { BlkverifyFilter, parseBlkverifyName } from './filter/blkverify.js';
export { CopyOnReadFilter } from './filter/copy-on-read.js';
export { PreallocateFilter } from './filter/preallocate.js';
export { QuorumDriver, type QuorumEvent, type QuorumOptions } from './filter/quorum.js';
export { ThrottleFilter } from './filter/throttle.js';
export { legacySocketAddress, listenAddress as addressForListening, socketAddress, type SocketAddress } from './daemon/address.js';
export type { Chardev, ChardevConfig } from './daemon/chardev.js';
export { parseChardevOptions, type ParsedChardev } from './daemon/chardev-options.js';
export { addBlockdev } from './daemon/commands-block.js';
export { addChardev } from './daemon/commands-chardev.js';
export { addExport, startNbdServer } from './daemon/commands-export.js';
export type { DaemonLog } from './daemon/log.js';
export { StorageDaemon, type StorageDaemonOptions } from './daemon/daemon.js';
export { BlockExports, type BlockExportInfo, type NbdExportRequest, type StartNbdServer } from './daemon/exports.js';
export { parseQemuOpts, type QemuOpts } from './daemon/qemu-opts.js';
export { PidFile } from './daemon/pid-file.js';
export { createQcow2 } from './format/qcow2/create.js';
export { openQcow2 } from './format/qcow2/qcow2.js';
export { fullOptions, nodeFilename } from './image/filename.js';
export { blockDeviceInfo, blockStats, nodeImageInfo, permissionList } from './image/node-info.js';
export { imageInfo, snapshotInfo, type ImageInfo } from './image/info.js';
export type { BackingPolicy } from './image/backing-name.js';
export { openByName, openByOptions, type OpenedByName } from './image/open-name.js';
export { INTERNAL_SNAPSHOT } from './image/driver-qcow2.js';
export { openBlockdev, type BlockdevContext } from './image/blockdev.js';
export type { OptionTree } from './image/options.js';
export { bypassFilter, insertFilter, replaceNode } from './image/graph-edit.js';
export { reopenBlockdevs } from './image/reopen.js';
export { createImage, openImage, type CreateImageOptions, type OpenImageOptions } from './image/open.js';
export { copyImage, copyNode, type CopyImageOptions, type CopyOptions, type CopyResult } from './job/copy.js';
export { createSnapshot, type CreatedSnapshot, type CreateSnapshotRequest, type OnProgress } from './job/snapshot-create.js';
export { createOnDaemon, type DaemonSnapshot, type DaemonSnapshotRequest } from './job/snapshot-daemon.js';
export { createFromQemu } from './job/snapshot-qemu.js';
export {
  deleteSnapshot, extractSnapshot, listSnapshots, loadSnapshot, revertSnapshot, type SendStateRequest, type UseSnapshotRequest,
} from './job/snapshot-use.js';
export { BASE_ALLOCATION, NbdClient, type NbdClientOptions, type NbdExtent, type ZeroOptions } from './nbd/client.js';
export type { NbdAddress } from './nbd/client-socket.js';
export {
  loadTlsPsk, loadTlsX509, startTlsClient, startTlsServer, type TlsCredentials, type TlsEndpoint, type TlsPskOptions, type TlsX509Options,
} from './nbd/tls.js';
export type { ExportBitmap, NbdExport } from './nbd/export.js';
export type { NbdListenAddress } from './nbd/listen.js';
export { NbdServer, type NbdServerOptions } from './nbd/server.js';
export { nbdServerFacts, type NbdExportFacts, type NbdFactsOptions, type NbdServerFacts } from './nbd/server-facts.js';
export type { ExportInfo, Negotiated } from './nbd/handshake-client.js';
export { isNbdName } from './nbd/name.js';
export { loadTargetTls, parseNbdName, type NbdTarget } from './nbd/uri.js';
export { CACHE_MODES, parseCacheMode, type CacheModeName } from './protocol/cache-mode.js';
export { openFileDriver, type FileOptions } from './protocol/file.js';
export { MemoryDriver } from './protocol/memory.js';
export { NbdDriver, openNbdDriver, openNbdName, type NbdDriverOptions } from './protocol/nbd.js';
export { NullDriver } from './protocol/null.js';
export { objectHelp } from './qom/help.js';
export { ObjectModel, type ShownProperties } from './qom/object-model.js';
export type { TraceSink } from './trace/sink.js';
export { visit, type VisitMode } from './qapi/visit.js';
export { EXTENSION_PREFIX, schema } from './qapi/schema.js';
export { introspect } from './qapi/introspect.js';
export { QmpCommandError, type QmpErrorClass } from './qmp/command-error.js';
export { QmpServer, type CommandTable, type QmpCommand, type QmpServerOptions, type QmpVersion } from './qmp/server.js';
export type { Session, SessionOptions } from './qmp/session.js';
export { visitText } from './qapi/visit-text.js';
export { parseJson, type JsonItem } from './qobject/parser.js';
export { printJson, type PrintOptions } from './qobject/print.js';
export type { Json, JsonDict } from './qobject/value.js';
export { QmpClient, QmpError, type QmpConnectOptions, type QmpWaitOptions } from './qmp/client.js';
export { checkSettled, machineStatus, migrateInto, resume, whileStopped, type MachineStatus } from './vmstate/qemu-control.js';
export { snapshotImages, writableDisks, type MachineDisk } from './vmstate/qemu-disks.js';
export { checkStreamEnd, type StoredState, type StreamKind } from './vmstate/qemu-stream.js';
export { VmStateReader, type VmStateReaderOptions } from './vmstate/reader.js';
export { openVmStateOutput, sendState, type VmStateOutput, type VmStateOutputOptions } from './vmstate/sinks.js';
export { openVmStateInput, SocketInput, type VmStateInput, type VmStateInputOptions } from './vmstate/sources.js';
export { Spool, type SpoolOptions } from './vmstate/spool.js';
export { VmStateWriter, type VmStateConsumer, type VmStateWriterOptions } from './vmstate/writer.js';
