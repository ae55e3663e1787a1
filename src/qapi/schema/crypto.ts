/** Ciphers, LUKS, and credentials. The notation is told in ../notation.ts. */
export const CRYPTO = `
enum QCryptoSecretFormat { raw, base64 }
enum QCryptoTLSCredsEndpoint { client, server }
struct QCryptoBlockOptionsQCow { key-secret?: str }
struct QCryptoBlockOptionsLUKS { key-secret?: str }
enum QCryptoCipherAlgorithm {
  aes-128, aes-192, aes-256, des, 3des, cast5-128, serpent-128, serpent-192, serpent-256, twofish-128, twofish-192, twofish-256
}
enum QCryptoCipherMode { ecb, cbc, xts, ctr }
enum QCryptoIVGenAlgorithm { plain, plain64, essiv }
enum QCryptoHashAlgorithm { md5, sha1, sha224, sha256, sha384, sha512, ripemd160 }
union QCryptoBlockCreateOptions by format { format: QCryptoBlockFormat } of {
  qcow: QCryptoBlockOptionsQCow, luks: QCryptoBlockCreateOptionsLUKS
}
enum QCryptoBlockLUKSKeyslotState { active, inactive }
union QCryptoBlockAmendOptions by format { format: QCryptoBlockFormat } of { luks: QCryptoBlockAmendOptionsLUKS }
struct QCryptoBlockInfoLUKS {
  cipher-alg: QCryptoCipherAlgorithm, cipher-mode: QCryptoCipherMode, ivgen-alg: QCryptoIVGenAlgorithm,
  ivgen-hash-alg?: QCryptoHashAlgorithm, hash-alg: QCryptoHashAlgorithm, payload-offset: int, master-key-iters: int, uuid: str,
  slots: [QCryptoBlockInfoLUKSSlot]
}
enum QCryptoBlockFormat { qcow, luks }
struct QCryptoBlockCreateOptionsLUKS: QCryptoBlockOptionsLUKS {
  cipher-alg?: QCryptoCipherAlgorithm, cipher-mode?: QCryptoCipherMode, ivgen-alg?: QCryptoIVGenAlgorithm,
  ivgen-hash-alg?: QCryptoHashAlgorithm, hash-alg?: QCryptoHashAlgorithm, iter-time?: int
}
struct QCryptoBlockAmendOptionsLUKS {
  state: QCryptoBlockLUKSKeyslotState, new-secret?: str, old-secret?: str, keyslot?: int, iter-time?: int, secret?: str
}
struct QCryptoBlockInfoLUKSSlot { active: bool, iters?: int, stripes?: int, key-offset: int }
`;
