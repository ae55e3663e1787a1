/** Objects, and the properties of each type that can be made. The notation is told in ../notation.ts. */
export const QOM = `
command qom-list { path: str } -> [ObjectPropertyInfo]
command qom-get { path: str, property: str } -> value
command qom-set { path: str, property: str, value: value }
command qom-list-types { implements?: str, abstract?: bool } -> [ObjectTypeInfo]
command qom-list-properties { typename: str } -> [ObjectPropertyInfo]
command object-add: ObjectOptions
command object-del { id: str }

struct ObjectPropertyInfo { name: str, type: str, description?: str, default-value?: value }
struct ObjectTypeInfo { name: str, abstract?: bool, parent?: str }
union ObjectOptions by qom-type { qom-type: ObjectType, id: str } of {
  authz-list: AuthZListProperties, authz-listfile: AuthZListFileProperties, authz-pam: AuthZPAMProperties,
  authz-simple: AuthZSimpleProperties, can-host-socketcan: CanHostSocketcanProperties, colo-compare: ColoCompareProperties,
  cryptodev-backend: CryptodevBackendProperties, cryptodev-backend-builtin: CryptodevBackendProperties,
  cryptodev-backend-lkcf: CryptodevBackendProperties, cryptodev-vhost-user: CryptodevVhostUserProperties,
  dbus-vmstate: DBusVMStateProperties, filter-buffer: FilterBufferProperties, filter-dump: FilterDumpProperties,
  filter-mirror: FilterMirrorProperties, filter-redirector: FilterRedirectorProperties, filter-replay: NetfilterProperties,
  filter-rewriter: FilterRewriterProperties, input-barrier: InputBarrierProperties, input-linux: InputLinuxProperties,
  iothread: IothreadProperties, main-loop: MainLoopProperties, memory-backend-epc: MemoryBackendEpcProperties,
  memory-backend-file: MemoryBackendFileProperties, memory-backend-memfd: MemoryBackendMemfdProperties,
  memory-backend-ram: MemoryBackendProperties, pr-manager-helper: PrManagerHelperProperties, qtest: QtestProperties,
  rng-builtin: RngProperties, rng-egd: RngEgdProperties, rng-random: RngRandomProperties, secret: SecretProperties,
  secret_keyring: SecretKeyringProperties, sev-guest: SevGuestProperties, thread-context: ThreadContextProperties,
  throttle-group: ThrottleGroupProperties, tls-creds-anon: TlsCredsAnonProperties, tls-creds-psk: TlsCredsPskProperties,
  tls-creds-x509: TlsCredsX509Properties, tls-cipher-suites: TlsCredsProperties, x-remote-object: RemoteObjectProperties,
  x-vfio-user-server: VfioUserServerProperties
}
enum ObjectType {
  authz-list, authz-listfile, authz-pam, authz-simple, can-bus, can-host-socketcan, colo-compare, cryptodev-backend,
  cryptodev-backend-builtin, cryptodev-backend-lkcf, cryptodev-vhost-user, dbus-vmstate, filter-buffer, filter-dump,
  filter-mirror, filter-redirector, filter-replay, filter-rewriter, input-barrier, input-linux, iothread, main-loop,
  memory-backend-epc, memory-backend-file, memory-backend-memfd, memory-backend-ram, pef-guest, pr-manager-helper, qtest,
  rng-builtin, rng-egd, rng-random, secret, secret_keyring, sev-guest, thread-context, s390-pv-guest, throttle-group,
  tls-creds-anon, tls-creds-psk, tls-creds-x509, tls-cipher-suites, x-remote-object !unstable, x-vfio-user-server !unstable
}
struct AuthZListProperties { policy?: QAuthZListPolicy, rules?: [QAuthZListRule] }
struct AuthZListFileProperties { filename: str, refresh?: bool }
struct AuthZPAMProperties { service: str }
struct AuthZSimpleProperties { identity: str }
struct CanHostSocketcanProperties { if: str, canbus: str }
struct ColoCompareProperties {
  primary_in: str, secondary_in: str, outdev: str, iothread: str, notify_dev?: str, compare_timeout?: uint64,
  expired_scan_cycle?: uint32, max_queue_size?: uint32, vnet_hdr_support?: bool
}
struct CryptodevBackendProperties { queues?: uint32 }
struct CryptodevVhostUserProperties: CryptodevBackendProperties { chardev: str }
struct DBusVMStateProperties { addr: str, id-list?: str }
struct FilterBufferProperties: NetfilterProperties { interval: uint32 }
struct FilterDumpProperties: NetfilterProperties { file: str, maxlen?: uint32 }
struct FilterMirrorProperties: NetfilterProperties { outdev: str, vnet_hdr_support?: bool }
struct FilterRedirectorProperties: NetfilterProperties { indev?: str, outdev?: str, vnet_hdr_support?: bool }
struct NetfilterProperties { netdev: str, queue?: NetFilterDirection, status?: str, position?: str, insert?: NetfilterInsert }
struct FilterRewriterProperties: NetfilterProperties { vnet_hdr_support?: bool }
struct InputBarrierProperties { name: str, server?: str, port?: str, x-origin?: str, y-origin?: str, width?: str, height?: str }
struct InputLinuxProperties { evdev: str, grab_all?: bool, repeat?: bool, grab-toggle?: GrabToggleKeys }
struct IothreadProperties: EventLoopBaseProperties { poll-max-ns?: int, poll-grow?: int, poll-shrink?: int }
struct MainLoopProperties: EventLoopBaseProperties {}
struct MemoryBackendEpcProperties: MemoryBackendProperties {}
struct MemoryBackendFileProperties: MemoryBackendProperties {
  align?: size, discard-data?: bool, mem-path: str, pmem?: bool, readonly?: bool
}
struct MemoryBackendMemfdProperties: MemoryBackendProperties { hugetlb?: bool, hugetlbsize?: size, seal?: bool }
struct MemoryBackendProperties {
  dump?: bool, host-nodes?: [uint16], merge?: bool, policy?: HostMemPolicy, prealloc?: bool, prealloc-threads?: uint32,
  prealloc-context?: str, share?: bool, reserve?: bool, size: size, x-use-canonical-path-for-ramblock-id?: bool
}
struct PrManagerHelperProperties { path: str }
struct QtestProperties { chardev: str, log?: str }
struct RngProperties { opened?: bool !deprecated }
struct RngEgdProperties: RngProperties { chardev: str }
struct RngRandomProperties: RngProperties { filename?: str }
struct SecretProperties: SecretCommonProperties { data?: str, file?: str }
struct SecretKeyringProperties: SecretCommonProperties { serial: int32 }
struct SevGuestProperties {
  sev-device?: str, dh-cert-file?: str, session-file?: str, policy?: uint32, handle?: uint32, cbitpos?: uint32,
  reduced-phys-bits: uint32, kernel-hashes?: bool
}
struct ThreadContextProperties { cpu-affinity?: [uint16], node-affinity?: [uint16] }
struct ThrottleGroupProperties {
  limits?: ThrottleLimits, x-iops-total?: int !unstable, x-iops-total-max?: int !unstable,
  x-iops-total-max-length?: int !unstable, x-iops-read?: int !unstable, x-iops-read-max?: int !unstable,
  x-iops-read-max-length?: int !unstable, x-iops-write?: int !unstable, x-iops-write-max?: int !unstable,
  x-iops-write-max-length?: int !unstable, x-bps-total?: int !unstable, x-bps-total-max?: int !unstable,
  x-bps-total-max-length?: int !unstable, x-bps-read?: int !unstable, x-bps-read-max?: int !unstable,
  x-bps-read-max-length?: int !unstable, x-bps-write?: int !unstable, x-bps-write-max?: int !unstable,
  x-bps-write-max-length?: int !unstable, x-iops-size?: int !unstable
}
struct TlsCredsAnonProperties: TlsCredsProperties { loaded?: bool !deprecated }
struct TlsCredsPskProperties: TlsCredsProperties { loaded?: bool !deprecated, username?: str }
struct TlsCredsX509Properties: TlsCredsProperties { loaded?: bool !deprecated, sanity-check?: bool, passwordid?: str }
struct TlsCredsProperties { verify-peer?: bool, dir?: str, endpoint?: QCryptoTLSCredsEndpoint, priority?: str }
struct RemoteObjectProperties { fd: str, devid: str }
struct VfioUserServerProperties { socket: SocketAddress, device: str }
enum QAuthZListPolicy { deny, allow }
struct QAuthZListRule { match: str, policy: QAuthZListPolicy, format?: QAuthZListFormat }
enum NetFilterDirection { all, rx, tx }
enum NetfilterInsert { before, behind }
enum GrabToggleKeys { ctrl-ctrl, alt-alt, shift-shift, meta-meta, scrolllock, ctrl-scrolllock }
enum HostMemPolicy { default, preferred, bind, interleave }
struct ThrottleLimits {
  iops-total?: int, iops-total-max?: int, iops-total-max-length?: int, iops-read?: int, iops-read-max?: int,
  iops-read-max-length?: int, iops-write?: int, iops-write-max?: int, iops-write-max-length?: int, bps-total?: int,
  bps-total-max?: int, bps-total-max-length?: int, bps-read?: int, bps-read-max?: int, bps-read-max-length?: int,
  bps-write?: int, bps-write-max?: int, bps-write-max-length?: int, iops-size?: int
}
enum QAuthZListFormat { exact, glob }
struct SecretCommonProperties { loaded?: bool !deprecated, format?: QCryptoSecretFormat, keyid?: str, iv?: str }
struct EventLoopBaseProperties { aio-max-batch?: int, thread-pool-min?: int, thread-pool-max?: int }
`;
