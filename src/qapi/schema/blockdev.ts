/** Options of block nodes, driver by driver. The notation is told in ../notation.ts. */
export const BLOCKDEV = `
union BlockdevOptions by driver {
  driver: BlockdevDriver, node-name?: str, discard?: BlockdevDiscardOptions, cache?: BlockdevCacheOptions, read-only?: bool,
  auto-read-only?: bool, force-share?: bool, detect-zeroes?: BlockdevDetectZeroesOptions
} of {
  blkdebug: BlockdevOptionsBlkdebug, blklogwrites: BlockdevOptionsBlklogwrites, blkverify: BlockdevOptionsBlkverify,
  blkreplay: BlockdevOptionsBlkreplay, bochs: BlockdevOptionsGenericFormat, cloop: BlockdevOptionsGenericFormat,
  compress: BlockdevOptionsGenericFormat, copy-before-write: BlockdevOptionsCbw, copy-on-read: BlockdevOptionsCor,
  dmg: BlockdevOptionsGenericFormat, file: BlockdevOptionsFile, ftp: BlockdevOptionsCurlFtp, ftps: BlockdevOptionsCurlFtps,
  gluster: BlockdevOptionsGluster, host_cdrom: BlockdevOptionsFile, host_device: BlockdevOptionsFile,
  http: BlockdevOptionsCurlHttp, https: BlockdevOptionsCurlHttps, -io_uring: BlockdevOptionsIoUring,
  iscsi: BlockdevOptionsIscsi, luks: BlockdevOptionsLUKS, nbd: BlockdevOptionsNbd, nfs: BlockdevOptionsNfs,
  null-aio: BlockdevOptionsNull, null-co: BlockdevOptionsNull, nvme: BlockdevOptionsNVMe,
  -nvme-io_uring: BlockdevOptionsNvmeIoUring, parallels: BlockdevOptionsGenericFormat, preallocate: BlockdevOptionsPreallocate,
  qcow2: BlockdevOptionsQcow2, qcow: BlockdevOptionsQcow, qed: BlockdevOptionsGenericCOWFormat, quorum: BlockdevOptionsQuorum,
  raw: BlockdevOptionsRaw, rbd: BlockdevOptionsRbd, replication: BlockdevOptionsReplication,
  snapshot-access: BlockdevOptionsGenericFormat, ssh: BlockdevOptionsSsh, throttle: BlockdevOptionsThrottle,
  vdi: BlockdevOptionsGenericFormat, vhdx: BlockdevOptionsGenericFormat, -virtio-blk-vfio-pci: BlockdevOptionsVirtioBlkVfioPci,
  -virtio-blk-vhost-user: BlockdevOptionsVirtioBlkVhostUser, -virtio-blk-vhost-vdpa: BlockdevOptionsVirtioBlkVhostVdpa,
  vmdk: BlockdevOptionsGenericCOWFormat, vpc: BlockdevOptionsGenericFormat, vvfat: BlockdevOptionsVVFAT
}
enum BlockdevDetectZeroesOptions { off, on, unmap }
enum BlockdevDriver {
  blkdebug, blklogwrites, blkreplay, blkverify, bochs, cloop, compress, copy-before-write, copy-on-read, dmg, file,
  snapshot-access, ftp, ftps, gluster, host_cdrom, host_device, http, https, iscsi, luks, nbd, nfs, null-aio, null-co, nvme,
  parallels, preallocate, qcow, qcow2, qed, quorum, raw, rbd, replication, ssh, throttle, vdi, vhdx, vmdk, vpc, vvfat
}
enum BlockdevDiscardOptions { ignore, unmap }
struct BlockdevCacheOptions { direct?: bool, no-flush?: bool }
struct BlockdevOptionsBlkdebug {
  image: BlockdevRef, config?: str, align?: int, max-transfer?: int32, opt-write-zero?: int32, max-write-zero?: int32,
  opt-discard?: int32, max-discard?: int32, inject-error?: [BlkdebugInjectErrorOptions], set-state?: [BlkdebugSetStateOptions],
  take-child-perms?: [BlockPermission], unshare-child-perms?: [BlockPermission]
}
struct BlockdevOptionsBlklogwrites {
  file: BlockdevRef, log: BlockdevRef, log-sector-size?: uint32, log-append?: bool, log-super-update-interval?: uint64
}
struct BlockdevOptionsBlkverify { test: BlockdevRef, raw: BlockdevRef }
struct BlockdevOptionsBlkreplay { image: BlockdevRef }
struct BlockdevOptionsGenericFormat { file: BlockdevRef }
struct BlockdevOptionsCbw: BlockdevOptionsGenericFormat {
  target: BlockdevRef, bitmap?: BlockDirtyBitmap, on-cbw-error?: OnCbwError, cbw-timeout?: uint32
}
struct BlockdevOptionsCor: BlockdevOptionsGenericFormat { bottom?: str }
struct BlockdevOptionsFile {
  filename: str, pr-manager?: str, locking?: OnOffAuto, aio?: BlockdevAioOptions, aio-max-batch?: int, drop-cache?: bool,
  x-check-cache-dropped?: bool !unstable
} !dynamic-auto-read-only
struct BlockdevOptionsCurlFtp: BlockdevOptionsCurlBase {}
struct BlockdevOptionsCurlFtps: BlockdevOptionsCurlBase { sslverify?: bool }
struct BlockdevOptionsGluster { volume: str, path: str, server: [SocketAddress], debug?: int, logfile?: str }
struct BlockdevOptionsCurlHttp: BlockdevOptionsCurlBase { cookie?: str, cookie-secret?: str }
struct BlockdevOptionsCurlHttps: BlockdevOptionsCurlBase { cookie?: str, sslverify?: bool, cookie-secret?: str }
struct BlockdevOptionsIscsi {
  transport: IscsiTransport, portal: str, target: str, lun?: int, user?: str, password-secret?: str, initiator-name?: str,
  header-digest?: IscsiHeaderDigest, timeout?: int
}
struct BlockdevOptionsLUKS: BlockdevOptionsGenericFormat { key-secret?: str }
struct BlockdevOptionsNbd {
  server: SocketAddress, export?: str, tls-creds?: str, tls-hostname?: str, x-dirty-bitmap?: str !unstable,
  reconnect-delay?: uint32, open-timeout?: uint32
}
struct BlockdevOptionsNfs {
  server: NFSServer, path: str, user?: int, group?: int, tcp-syn-count?: int, readahead-size?: int, page-cache-size?: int,
  debug?: int
}
struct BlockdevOptionsNull { size?: int, latency-ns?: uint64, read-zeroes?: bool }
struct BlockdevOptionsNVMe { device: str, namespace: int }
struct BlockdevOptionsPreallocate: BlockdevOptionsGenericFormat { prealloc-align?: int, prealloc-size?: int }
struct BlockdevOptionsQcow2: BlockdevOptionsGenericCOWFormat {
  lazy-refcounts?: bool, pass-discard-request?: bool, pass-discard-snapshot?: bool, pass-discard-other?: bool,
  overlap-check?: Qcow2OverlapChecks, cache-size?: int, l2-cache-size?: int, l2-cache-entry-size?: int,
  refcount-cache-size?: int, cache-clean-interval?: int, encrypt?: BlockdevQcow2Encryption, data-file?: BlockdevRef
}
struct BlockdevOptionsQcow: BlockdevOptionsGenericCOWFormat { encrypt?: BlockdevQcowEncryption }
struct BlockdevOptionsGenericCOWFormat: BlockdevOptionsGenericFormat { backing?: BlockdevRefOrNull }
struct BlockdevOptionsQuorum {
  blkverify?: bool, children: [BlockdevRef], vote-threshold: int, rewrite-corrupted?: bool, read-pattern?: QuorumReadPattern
}
struct BlockdevOptionsRaw: BlockdevOptionsGenericFormat { offset?: int, size?: int }
struct BlockdevOptionsRbd {
  pool: str, namespace?: str, image: str, conf?: str, snapshot?: str, encrypt?: RbdEncryptionOptions, user?: str,
  auth-client-required?: [RbdAuthMode], key-secret?: str, server?: [InetSocketAddressBase]
}
struct BlockdevOptionsReplication: BlockdevOptionsGenericFormat { mode: ReplicationMode, top-id?: str }
struct BlockdevOptionsSsh { server: InetSocketAddress, path: str, user?: str, host-key-check?: SshHostKeyCheck }
struct BlockdevOptionsThrottle { throttle-group: str, file: BlockdevRef }
struct BlockdevOptionsVVFAT { dir: str, fat-type?: int, floppy?: bool, label?: str, rw?: bool }
alternate BlockdevRef { definition: BlockdevOptions, reference: str }
struct BlkdebugInjectErrorOptions {
  event: BlkdebugEvent, state?: int, iotype?: BlkdebugIOType, errno?: int, sector?: int, once?: bool, immediately?: bool
}
struct BlkdebugSetStateOptions { event: BlkdebugEvent, state?: int, new_state: int }
enum OnCbwError { break-guest-write, break-snapshot }
enum BlockdevAioOptions { threads, native, io_uring }
enum IscsiTransport { tcp, iser }
enum IscsiHeaderDigest { crc32c, none, crc32c-none, none-crc32c }
struct NFSServer { type: NFSTransport, host: str }
alternate BlockdevRefOrNull { definition: BlockdevOptions, reference: str, null: null }
alternate Qcow2OverlapChecks { flags: Qcow2OverlapCheckFlags, mode: Qcow2OverlapCheckMode }
union BlockdevQcow2Encryption by format { format: BlockdevQcow2EncryptionFormat } of {
  aes: QCryptoBlockOptionsQCow, luks: QCryptoBlockOptionsLUKS
}
union BlockdevQcowEncryption by format { format: BlockdevQcowEncryptionFormat } of { aes: QCryptoBlockOptionsQCow }
enum QuorumReadPattern { quorum, fifo }
union RbdEncryptionOptions by format { format: RbdImageEncryptionFormat } of {
  luks: RbdEncryptionOptionsLUKS, luks2: RbdEncryptionOptionsLUKS2
}
enum RbdAuthMode { cephx, none }
enum ReplicationMode { primary, secondary }
union SshHostKeyCheck by mode { mode: SshHostKeyCheckMode } of { hash: SshHostKeyHash }
enum BlkdebugEvent {
  l1_update, l1_grow_alloc_table, l1_grow_write_table, l1_grow_activate_table, l2_load, l2_update, l2_update_compressed,
  l2_alloc_cow_read, l2_alloc_write, read_aio, read_backing_aio, read_compressed, write_aio, write_compressed, vmstate_load,
  vmstate_save, cow_read, cow_write, reftable_load, reftable_grow, reftable_update, refblock_load, refblock_update,
  refblock_update_part, refblock_alloc, refblock_alloc_hookup, refblock_alloc_write, refblock_alloc_write_blocks,
  refblock_alloc_write_table, refblock_alloc_switch_table, cluster_alloc, cluster_alloc_bytes, cluster_free, flush_to_os,
  flush_to_disk, pwritev_rmw_head, pwritev_rmw_after_head, pwritev_rmw_tail, pwritev_rmw_after_tail, pwritev, pwritev_zero,
  pwritev_done, empty_image_prepare, l1_shrink_write_table, l1_shrink_free_l2_clusters, cor_write, cluster_alloc_space, none
}
enum BlkdebugIOType { read, write, write-zeroes, discard, flush, block-status }
enum NFSTransport { inet }
struct Qcow2OverlapCheckFlags {
  template?: Qcow2OverlapCheckMode, main-header?: bool, active-l1?: bool, active-l2?: bool, refcount-table?: bool,
  refcount-block?: bool, snapshot-table?: bool, inactive-l1?: bool, inactive-l2?: bool, bitmap-directory?: bool
}
enum Qcow2OverlapCheckMode { none, constant, cached, all }
enum BlockdevQcow2EncryptionFormat { aes, luks }
enum BlockdevQcowEncryptionFormat { aes }
enum RbdImageEncryptionFormat { luks, luks2 }
struct RbdEncryptionOptionsLUKS: RbdEncryptionOptionsLUKSBase {}
struct RbdEncryptionOptionsLUKS2: RbdEncryptionOptionsLUKSBase {}
enum SshHostKeyCheckMode { none, hash, known_hosts }
struct SshHostKeyHash { type: SshHostKeyCheckHashType, hash: str }
enum SshHostKeyCheckHashType { md5, sha1, sha256 }
struct BlockdevOptionsCurlBase {
  url: str, readahead?: int, timeout?: int, username?: str, password-secret?: str, proxy-username?: str,
  proxy-password-secret?: str
}
struct RbdEncryptionOptionsLUKSBase { key-secret: str }
struct BlockdevOptionsIoUring { filename: str }
struct BlockdevOptionsNvmeIoUring { path: str }
struct BlockdevOptionsVirtioBlkVfioPci { path: str }
struct BlockdevOptionsVirtioBlkVhostUser { path: str }
struct BlockdevOptionsVirtioBlkVhostVdpa { path: str }
`;
