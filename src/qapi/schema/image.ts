/** What is told of images. The notation is told in ../notation.ts. */
export const IMAGE = `
struct SnapshotInfo {
  id: str, name: str, vm-state-size: int, date-sec: int, date-nsec: int, vm-clock-sec: int, vm-clock-nsec: int, icount?: int
}
struct ImageInfo {
  filename: str, format: str, dirty-flag?: bool, actual-size?: int, virtual-size: int, cluster-size?: int, encrypted?: bool,
  compressed?: bool, backing-filename?: str, full-backing-filename?: str, backing-filename-format?: str,
  snapshots?: [SnapshotInfo], backing-image?: ImageInfo, format-specific?: ImageInfoSpecific
}
union ImageInfoSpecific by type { type: ImageInfoSpecificKind } of {
  qcow2: ImageInfoSpecificQCow2Wrapper, vmdk: ImageInfoSpecificVmdkWrapper, luks: ImageInfoSpecificLUKSWrapper,
  rbd: ImageInfoSpecificRbdWrapper
}
enum ImageInfoSpecificKind { qcow2, vmdk, luks, rbd }
struct ImageInfoSpecificQCow2Wrapper { data: ImageInfoSpecificQCow2 }
struct ImageInfoSpecificVmdkWrapper { data: ImageInfoSpecificVmdk }
struct ImageInfoSpecificLUKSWrapper { data: QCryptoBlockInfoLUKS }
struct ImageInfoSpecificRbdWrapper { data: ImageInfoSpecificRbd }
struct ImageInfoSpecificQCow2 {
  compat: str, data-file?: str, data-file-raw?: bool, extended-l2?: bool, lazy-refcounts?: bool, corrupt?: bool,
  refcount-bits: int, encrypt?: ImageInfoSpecificQCow2Encryption, bitmaps?: [Qcow2BitmapInfo],
  compression-type: Qcow2CompressionType
}
struct ImageInfoSpecificVmdk { create-type: str, cid: int, parent-cid: int, extents: [ImageInfo] }
struct ImageInfoSpecificRbd { encryption-format?: RbdImageEncryptionFormat }
union ImageInfoSpecificQCow2Encryption by format { format: BlockdevQcow2EncryptionFormat } of { luks: QCryptoBlockInfoLUKS }
struct Qcow2BitmapInfo { name: str, granularity: uint32, flags: [Qcow2BitmapInfoFlags] }
enum Qcow2BitmapInfoFlags { in-use, auto }
`;
