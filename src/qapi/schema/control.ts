/** The monitor itself, and the schema of the schema. The notation is told in ../notation.ts. */
export const CONTROL = `
command qmp_capabilities { enable?: [QMPCapability] }
command query-version -> VersionInfo
command query-commands -> [CommandInfo]
command quit
command query-qmp-schema -> [SchemaInfo]

struct VersionInfo { qemu: VersionTriple, package: str }
struct CommandInfo { name: str }
union SchemaInfo by meta-type { name: str, meta-type: SchemaMetaType, features?: [str] } of {
  builtin: SchemaInfoBuiltin, enum: SchemaInfoEnum, array: SchemaInfoArray, object: SchemaInfoObject,
  alternate: SchemaInfoAlternate, command: SchemaInfoCommand, event: SchemaInfoEvent
}
enum QMPCapability { oob }
struct VersionTriple { major: int, minor: int, micro: int }
enum SchemaMetaType { builtin, enum, array, object, alternate, command, event }
struct SchemaInfoBuiltin { json-type: JSONType }
struct SchemaInfoEnum { members: [SchemaInfoEnumMember], values: [str] !deprecated }
struct SchemaInfoArray { element-type: str }
struct SchemaInfoObject { members: [SchemaInfoObjectMember], tag?: str, variants?: [SchemaInfoObjectVariant] }
struct SchemaInfoAlternate { members: [SchemaInfoAlternateMember] }
struct SchemaInfoCommand { arg-type: str, ret-type: str, allow-oob?: bool }
struct SchemaInfoEvent { arg-type: str }
enum JSONType { string, number, int, boolean, null, object, array, value }
struct SchemaInfoEnumMember { name: str, features?: [str] }
struct SchemaInfoObjectMember { name: str, type: str, default?: value, features?: [str] }
struct SchemaInfoObjectVariant { case: str, type: str }
struct SchemaInfoAlternateMember { type: str }
`;
