/** Addresses of sockets. The notation is told in ../notation.ts. */
export const SOCKETS = `
union SocketAddressLegacy by type { type: SocketAddressType } of {
  inet: InetSocketAddressWrapper, unix: UnixSocketAddressWrapper, vsock: VsockSocketAddressWrapper, fd: StringWrapper
}
union SocketAddress by type { type: SocketAddressType } of {
  inet: InetSocketAddress, unix: UnixSocketAddress, vsock: VsockSocketAddress, fd: String
}
struct InetSocketAddressBase { host: str, port: str }
struct InetSocketAddress: InetSocketAddressBase {
  numeric?: bool, to?: uint16, ipv4?: bool, ipv6?: bool, keep-alive?: bool, mptcp?: bool
}
enum SocketAddressType { inet, unix, vsock, fd }
struct InetSocketAddressWrapper { data: InetSocketAddress }
struct UnixSocketAddressWrapper { data: UnixSocketAddress }
struct VsockSocketAddressWrapper { data: VsockSocketAddress }
struct StringWrapper { data: String }
struct UnixSocketAddress { path: str, abstract?: bool, tight?: bool }
struct VsockSocketAddress { cid: str, port: str }
struct String { str: str }
`;
