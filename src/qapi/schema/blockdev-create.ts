/** What images are made and amended with. The notation is told in ../notation.ts. */
export const CREATE = `
union BlockdevCreateOptions by driver { driver: BlockdevDriver } of {
  file: BlockdevCreateOptionsFile, gluster: BlockdevCreateOptionsGluster, luks: BlockdevCreateOptionsLUKS,
  nfs: BlockdevCreateOptionsNfs, parallels: BlockdevCreateOptionsParallels, qcow: BlockdevCreateOptionsQcow,
  qcow2: BlockdevCreateOptionsQcow2, qed: BlockdevCreateOptionsQed, rbd: BlockdevCreateOptionsRbd,
  ssh: BlockdevCreateOptionsSsh, vdi: BlockdevCreateOptionsVdi, vhdx: BlockdevCreateOptionsVhdx,
  vmdk: BlockdevCreateOptionsVmdk, vpc: BlockdevCreateOptionsVpc
}
union BlockdevAmendOptions by driver { driver: BlockdevDriver } of {
  luks: BlockdevAmendOptionsLUKS, qcow2: BlockdevAmendOptionsQcow2
}
struct BlockdevCreateOptionsFile {
  filename: str, size: size, preallocation?: PreallocMode, nocow?: bool, extent-size-hint?: size
}
struct BlockdevCreateOptionsGluster { location: BlockdevOptionsGluster, size: size, preallocation?: PreallocMode }
struct BlockdevCreateOptionsLUKS: QCryptoBlockCreateOptionsLUKS { file: BlockdevRef, size: size, preallocation?: PreallocMode }
struct BlockdevCreateOptionsNfs { location: BlockdevOptionsNfs, size: size }
struct BlockdevCreateOptionsParallels { file: BlockdevRef, size: size, cluster-size?: size }
struct BlockdevCreateOptionsQcow { file: BlockdevRef, size: size, backing-file?: str, encrypt?: QCryptoBlockCreateOptions }
struct BlockdevCreateOptionsQcow2 {
  file: BlockdevRef, data-file?: BlockdevRef, data-file-raw?: bool, extended-l2?: bool, size: size,
  version?: BlockdevQcow2Version, backing-file?: str, backing-fmt?: BlockdevDriver, encrypt?: QCryptoBlockCreateOptions,
  cluster-size?: size, preallocation?: PreallocMode, lazy-refcounts?: bool, refcount-bits?: int,
  compression-type?: Qcow2CompressionType
}
struct BlockdevCreateOptionsQed {
  file: BlockdevRef, size: size, backing-file?: str, backing-fmt?: BlockdevDriver, cluster-size?: size, table-size?: int
}
struct BlockdevCreateOptionsRbd {
  location: BlockdevOptionsRbd, size: size, cluster-size?: size, encrypt?: RbdEncryptionCreateOptions
}
struct BlockdevCreateOptionsSsh { location: BlockdevOptionsSsh, size: size }
struct BlockdevCreateOptionsVdi { file: BlockdevRef, size: size, preallocation?: PreallocMode }
struct BlockdevCreateOptionsVhdx {
  file: BlockdevRef, size: size, log-size?: size, block-size?: size, subformat?: BlockdevVhdxSubformat, block-state-zero?: bool
}
struct BlockdevCreateOptionsVmdk {
  file: BlockdevRef, size: size, extents?: [BlockdevRef], subformat?: BlockdevVmdkSubformat, backing-file?: str,
  adapter-type?: BlockdevVmdkAdapterType, hwversion?: str, toolsversion?: str, zeroed-grain?: bool
}
struct BlockdevCreateOptionsVpc { file: BlockdevRef, size: size, subformat?: BlockdevVpcSubformat, force-size?: bool }
struct BlockdevAmendOptionsLUKS: QCryptoBlockAmendOptionsLUKS {}
struct BlockdevAmendOptionsQcow2 { encrypt?: QCryptoBlockAmendOptions }
enum PreallocMode { off, metadata, falloc, full }
enum BlockdevQcow2Version { v2, v3 }
enum Qcow2CompressionType { zlib, zstd }
union RbdEncryptionCreateOptions by format { format: RbdImageEncryptionFormat } of {
  luks: RbdEncryptionCreateOptionsLUKS, luks2: RbdEncryptionCreateOptionsLUKS2
}
enum BlockdevVhdxSubformat { dynamic, fixed }
enum BlockdevVmdkSubformat { monolithicSparse, monolithicFlat, twoGbMaxExtentSparse, twoGbMaxExtentFlat, streamOptimized }
enum BlockdevVmdkAdapterType { ide, buslogic, lsilogic, legacyESX }
enum BlockdevVpcSubformat { dynamic, fixed }
struct RbdEncryptionCreateOptionsLUKS: RbdEncryptionCreateOptionsLUKSBase {}
struct RbdEncryptionCreateOptionsLUKS2: RbdEncryptionCreateOptionsLUKSBase {}
struct RbdEncryptionCreateOptionsLUKSBase { key-secret: str, cipher-alg?: QCryptoCipherAlgorithm }
`;
