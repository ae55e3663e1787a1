/** Types that QEMU's command line takes and no command does. The notation is told in ../notation.ts. */
export const COMMAND_LINE = `
enum MonitorMode { readline, control }
struct MonitorOptions { id?: str, mode?: MonitorMode, pretty?: bool, chardev: str }
struct NbdServerOptions { addr: SocketAddress, tls-creds?: str, tls-authz?: str, max-connections?: uint32 }
`;
