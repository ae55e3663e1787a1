/** Character devices. The notation is told in ../notation.ts. */
export const CHAR = `
command query-chardev -> [ChardevInfo]
command query-chardev-backends -> [ChardevBackendInfo]
command ringbuf-write { device: str, data: str, format?: DataFormat }
command ringbuf-read { device: str, size: int, format?: DataFormat } -> str
command chardev-add { id: str, backend: ChardevBackend } -> ChardevReturn
command chardev-change { id: str, backend: ChardevBackend } -> ChardevReturn
command chardev-remove { id: str }
command chardev-send-break { id: str }
event VSERPORT_CHANGE { id: str, open: bool }

struct ChardevInfo { label: str, filename: str, frontend-open: bool }
struct ChardevBackendInfo { name: str }
struct ChardevReturn { pty?: str }
enum DataFormat { utf8, base64 }
union ChardevBackend by type { type: ChardevBackendKind } of {
  file: ChardevFileWrapper, serial: ChardevHostdevWrapper, parallel: ChardevHostdevWrapper, pipe: ChardevHostdevWrapper,
  socket: ChardevSocketWrapper, udp: ChardevUdpWrapper, pty: ChardevCommonWrapper, null: ChardevCommonWrapper,
  mux: ChardevMuxWrapper, msmouse: ChardevCommonWrapper, wctablet: ChardevCommonWrapper, braille: ChardevCommonWrapper,
  testdev: ChardevCommonWrapper, stdio: ChardevStdioWrapper, console: ChardevCommonWrapper,
  spicevmc: ChardevSpiceChannelWrapper, spiceport: ChardevSpicePortWrapper, qemu-vdagent: ChardevQemuVDAgentWrapper,
  dbus: ChardevDBusWrapper, vc: ChardevVCWrapper, ringbuf: ChardevRingbufWrapper, memory: ChardevRingbufWrapper
}
enum ChardevBackendKind {
  file, serial, parallel, pipe, socket, udp, pty, null, mux, msmouse, wctablet, braille, testdev, stdio, console, spicevmc,
  spiceport, qemu-vdagent, dbus, vc, ringbuf, memory
}
struct ChardevFileWrapper { data: ChardevFile }
struct ChardevHostdevWrapper { data: ChardevHostdev }
struct ChardevSocketWrapper { data: ChardevSocket }
struct ChardevUdpWrapper { data: ChardevUdp }
struct ChardevCommonWrapper { data: ChardevCommon }
struct ChardevMuxWrapper { data: ChardevMux }
struct ChardevStdioWrapper { data: ChardevStdio }
struct ChardevSpiceChannelWrapper { data: ChardevSpiceChannel }
struct ChardevSpicePortWrapper { data: ChardevSpicePort }
struct ChardevQemuVDAgentWrapper { data: ChardevQemuVDAgent }
struct ChardevDBusWrapper { data: ChardevDBus }
struct ChardevVCWrapper { data: ChardevVC }
struct ChardevRingbufWrapper { data: ChardevRingbuf }
struct ChardevFile: ChardevCommon { in?: str, out: str, append?: bool }
struct ChardevHostdev: ChardevCommon { device: str }
struct ChardevSocket: ChardevCommon {
  addr: SocketAddressLegacy, tls-creds?: str, tls-authz?: str, server?: bool, wait?: bool, nodelay?: bool, telnet?: bool,
  tn3270?: bool, websocket?: bool, reconnect?: int
}
struct ChardevUdp: ChardevCommon { remote: SocketAddressLegacy, local?: SocketAddressLegacy }
struct ChardevCommon { logfile?: str, logappend?: bool }
struct ChardevMux: ChardevCommon { chardev: str }
struct ChardevStdio: ChardevCommon { signal?: bool }
struct ChardevSpiceChannel: ChardevCommon { type: str }
struct ChardevSpicePort: ChardevCommon { fqdn: str }
struct ChardevQemuVDAgent: ChardevCommon { mouse?: bool, clipboard?: bool }
struct ChardevDBus: ChardevCommon { name: str }
struct ChardevVC: ChardevCommon { width?: int, height?: int, cols?: int, rows?: int }
struct ChardevRingbuf: ChardevCommon { size?: int }
`;
