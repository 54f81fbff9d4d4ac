"""Makes `methods.pyx`, `methods.pxd` and `methods.pyi` out of `amqp091.toml`: one class per method, its codec, and a constant to switch on.

Run it after a change to the table (`python codec/generate.py`) and commit what it wrote; a test holds the files against the table. It is
never imported by the broker.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent
TABLE: Final = FOLDER / "amqp091.toml"
FIRST_LINE: Final = "# Generated from amqp091.toml by generate.py. Do not edit: change those and run `python codec/generate.py`.\n"

# Wire type -> declaration of the C field, Python type, default, cursor call, buffer call (cast of a literal).
C_TYPES: Final = {
    "bit": "bint",
    "octet": "uint8_t",
    "short": "uint16_t",
    "long": "uint32_t",
    "longlong": "uint64_t",
    "shortstr": "str",
    "longstr": "bytes",
    "table": "dict",
}
PYTHON_TYPES: Final = {
    "bit": "bool",
    "octet": "int",
    "short": "int",
    "long": "int",
    "longlong": "int",
    "shortstr": "str",
    "longstr": "bytes",
    "table": "dict[str, Any]",
}
READERS: Final = {
    "octet": "cursor_u8(at)",
    "short": "cursor_u16(at)",
    "long": "cursor_u32(at)",
    "longlong": "cursor_u64(at)",
    "shortstr": "read_shortstr(at)",
    "longstr": "read_longstr(at)",
    "table": "read_table(at, False)",
}
WRITERS: Final = {
    "octet": "buffer_u8",
    "short": "buffer_u16",
    "long": "buffer_u32",
    "longlong": "buffer_u64",
    "shortstr": "write_shortstr",
    "longstr": "write_longstr",
    "table": "write_table",
}
EMPTY: Final = {"octet": "0", "short": "0", "long": "0", "longlong": "0", "shortstr": '""', "longstr": 'b""', "table": "{}"}


@dataclass(frozen=True)
class Field:
    """One field of a method, in wire order. default: as Python source; "None" stands for an empty table."""

    name: str
    type: str
    reserved: bool
    default: str


@dataclass(frozen=True)
class MethodSpec:
    """One method. name: "queue.declare"; replies: the names of what may answer it, for a synchronous one."""

    class_id: int
    method_id: int
    name: str
    sent_by: str
    synchronous: bool
    content: bool
    replies: tuple[str, ...]
    fields: tuple[Field, ...]

    @property
    def class_name(self) -> str:
        return "".join(word.capitalize() for word in self.name.replace(".", "-").split("-"))

    @property
    def snake_name(self) -> str:
        return self.name.replace(".", "_").replace("-", "_")

    @property
    def constant(self) -> str:
        return f"METHOD_{self.snake_name.upper()}"

    @property
    def visible(self) -> tuple[Field, ...]:
        """The fields that are attributes."""
        return tuple(field for field in self.fields if not field.reserved)


def default_source(type_name: str, value: object) -> str:
    """The default of a field as Python source."""
    if type_name == "bit":
        return "True" if value else "False"
    if type_name == "table":
        return "None"
    if type_name == "shortstr":
        return f'"{value or ""}"'
    if type_name == "longstr":
        return f'b"{value or ""}"'
    return str(value or 0)


def read_field(row: dict[str, Any]) -> Field:
    if row["type"] not in C_TYPES:
        raise ValueError(f"amqp091.toml: field {row['name']!r} has the unknown type {row['type']!r}")
    return Field(row["name"], row["type"], row.get("reserved", False), default_source(row["type"], row.get("default")))


def read_methods(table: dict[str, Any]) -> list[MethodSpec]:
    """Every method of the table, in its order. `ValueError` for a reply that no method of the class is."""
    methods = []
    for amqp_class in table["classes"]:
        names = {row["name"] for row in amqp_class["methods"]}
        for row in amqp_class["methods"]:
            if unknown := set(row.get("replies", ())) - names:
                raise ValueError(f"amqp091.toml: {amqp_class['name']}.{row['name']} names the unknown replies {sorted(unknown)}")
            methods.append(
                MethodSpec(
                    class_id=amqp_class["id"],
                    method_id=row["id"],
                    name=f"{amqp_class['name']}.{row['name']}",
                    sent_by=row["sent_by"],
                    synchronous=row.get("synchronous", False),
                    content=row.get("content", False),
                    replies=tuple(f"{amqp_class['name']}.{reply}" for reply in row.get("replies", ())),
                    fields=tuple(read_field(field) for field in row.get("fields", ())),
                )
            )
    return methods


def bit_groups(fields: tuple[Field, ...]) -> list[list[Field]]:
    """The fields in wire order, up to eight consecutive bits together: they share an octet."""
    groups: list[list[Field]] = []
    for field in fields:
        if field.type == "bit" and groups and groups[-1][0].type == "bit" and len(groups[-1]) < 8:
            groups[-1].append(field)
        else:
            groups.append([field])
    return groups


PXD_HEAD: Final = '''"""C side of `leveret.codec.methods`: a constant per method to switch on, the classes, and decoding from memory."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from leveret.codec.wire cimport Buffer

# class id << 16 | method id, as a method frame's payload begins.
cdef enum:
'''

PXD_METHOD: Final = """

cdef class Method:
    cdef readonly uint32_t kind     # one of the constants above

    cdef int write(self, Buffer* out) except -1
    cdef int write_fields(self, Buffer* out) except -1


# The method that a frame's payload is. Raises AmqpErrors only.
cdef Method decode_method_at(const uint8_t* payload, size_t size)
"""

PYX_HEAD: Final = '''"""Every method of AMQP 0-9-1 and RabbitMQ's extensions as a class: its fields, and its bytes both ways.

Used for everything but the hot path, which reads publish, ack, nack and reject and writes deliver without them. Only values and bytes: what
a method means is the channel's affair. A method's bytes are a frame's payload: class id, method id, fields.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from leveret.codec.tables cimport read_longstr, read_shortstr, read_table, write_longstr, write_shortstr, write_table
from leveret.codec.wire cimport (
    Buffer, Cursor, buffer_free, buffer_mark, buffer_rewind, buffer_u8, buffer_u16, buffer_u32, buffer_u64,
    cursor_u8, cursor_u16, cursor_u32, cursor_u64, load_u32,
)

from leveret.codec.errors import CommandInvalid, FrameError, numbered_bytes, quoted_bytes


cdef class Method:
    """What all methods have. Keyword arguments only; two are equal when they are of one class and their fields are.

    class_id, method_id: as on the wire; kind: both in one (class_id << 16 | method_id); name: "queue.declare"; sent_by: "client", "server"
    or "both"; synchronous: whether it is answered, by one of `replies` (names), unless its nowait is set; has_content: whether a content
    header and bodies follow it; fields: the names of its attributes in wire order. Reserved fields are not attributes.
    """

    class_id = 0
    method_id = 0
    name = ""
    sent_by = ""
    synchronous = False
    has_content = False
    replies = ()
    fields = ()

    def encode(self):
        """The payload of its frame, as bytes.

        `TypeError` for a field that is None or of a wrong type, `ValueError` for a short string over 255 bytes and what a table refuses.
        """
        cdef Buffer out = Buffer(NULL, 0, 0, 0)
        try:
            self.write(&out)
            return out.data[:out.length]
        finally:
            buffer_free(&out)

    cdef int write(self, Buffer* out) except -1:
        """Append the payload; on an exception the buffer is as it was."""
        cdef size_t mark = buffer_mark(out)
        try:
            buffer_u32(out, self.kind)
            self.write_fields(out)
        except BaseException:
            buffer_rewind(out, mark)
            raise
        return 0

    cdef int write_fields(self, Buffer* out) except -1:
        return 0

    def __eq__(self, other):
        if type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, field) == getattr(other, field) for field in self.fields)

    __hash__ = None

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{field}={getattr(self, field)!r}' for field in self.fields)})"
'''

PYX_TAIL: Final = '''

def decode_method(bytes payload not None):
    """The method that a method frame's payload is.

    Raises `CommandInvalid` (503) for ids that no method has; `FrameError` (501) for fields that are cut short, for bytes left over and for
    a short string that is not UTF-8, in RabbitMQ's words, and for a malformed table (RabbitMQ drops the connection without a word);
    `CommandSyntaxError` (502) for a table nested deeper than 32.
    """
    return decode_method_at(<const uint8_t*>payload, len(payload))


cdef Method decode_method_at(const uint8_t* payload, size_t size):
    cdef Cursor at
    cdef Method method
    cdef size_t shown = size if size < 260 else 260     # a reply text holds 255 bytes; more would be cut from it
    if size < 4:
        raise FrameError(f"type 1, all octets = {quoted_bytes(payload[:size])}: unknown_frame")
    at.at = payload + 4
    at.end = payload + size
    at.failed = False
    method = _read(load_u32(payload), &at)
    if method is None:
        raise CommandInvalid("unimplemented method")
    if at.failed or at.at != at.end:
        raise FrameError(f"cannot decode {numbered_bytes(payload[4:shown])}", method)
    return method
'''

PYI_HEAD: Final = """from typing import Any, ClassVar, Final

class Method:
    class_id: ClassVar[int]
    method_id: ClassVar[int]
    name: ClassVar[str]
    sent_by: ClassVar[str]
    synchronous: ClassVar[bool]
    has_content: ClassVar[bool]
    replies: ClassVar[tuple[str, ...]]
    fields: ClassVar[tuple[str, ...]]
    @property
    def kind(self) -> int: ...
    def encode(self) -> bytes: ...
    def __eq__(self, other: object) -> bool: ...
"""


def render_pxd(methods: list[MethodSpec]) -> str:
    lines = [FIRST_LINE, PXD_HEAD]
    lines += [f"    {method.constant} = 0x{method.class_id << 16 | method.method_id:08X}\n" for method in methods]
    lines.append(PXD_METHOD)
    for method in methods:
        lines.append(f"\n\ncdef class {method.class_name}(Method):\n")
        lines += [f"    cdef public {C_TYPES[field.type]} {field.name}\n" for field in method.visible] or ["    pass\n"]
    return "".join(lines)


def tuple_source(names: tuple[str, ...]) -> str:
    quoted = [f'"{name}"' for name in names]
    return f"({', '.join(quoted)}{',' if len(names) == 1 else ''})"


def render_class(method: MethodSpec) -> str:
    """The class of one method: what it is, its constructor and its writer."""
    lines = [f"\n\ncdef class {method.class_name}(Method):\n"]
    lines.append(f'    class_id = {method.class_id}\n    method_id = {method.method_id}\n    name = "{method.name}"\n')
    lines.append(f'    sent_by = "{method.sent_by}"\n')
    lines.append("    synchronous = True\n" if method.synchronous else "")
    lines.append("    has_content = True\n" if method.content else "")
    lines.append(f"    replies = {tuple_source(method.replies)}\n" if method.replies else "")
    lines.append(f"    fields = {tuple_source(tuple(field.name for field in method.visible))}\n" if method.visible else "")
    lines.append(f"\n    def __cinit__(self, *args, **kwargs):\n        self.kind = {method.constant}\n")
    if method.visible:
        lines.append("\n    def __init__(\n        self, *,\n")
        lines += [f"        {C_TYPES[field.type]} {field.name}={field.default},\n" for field in method.visible]
        lines.append("    ):\n")
        for field in method.visible:
            value = f"{{}} if {field.name} is None else {field.name}" if field.type == "table" else field.name
            lines.append(f"        self.{field.name} = {value}\n")
    else:
        lines.append("\n    def __init__(self):\n        pass\n")
    if method.fields:
        lines.append("\n    cdef int write_fields(self, Buffer* out) except -1:\n")
        lines += [f"        {write_group(group)}\n" for group in bit_groups(method.fields)]
        lines.append("        return 0\n")
    return "".join(lines)


def write_group(group: list[Field]) -> str:
    """The line that writes one field, or the octet that several bits share."""
    first = group[0]
    if first.type == "bit":
        terms = [
            f"self.{field.name} << {place}" if place else f"self.{field.name}" for place, field in enumerate(group) if not field.reserved
        ]
        return f"buffer_u8(out, <uint8_t>({' | '.join(terms) or '0'}))"
    return f"{WRITERS[first.type]}(out, {EMPTY[first.type] if first.reserved else f'self.{first.name}'})"


def render_reader(method: MethodSpec) -> str:
    """The function that reads one method's fields."""
    name = method.class_name
    if not method.fields:
        return ""
    lines = [f"\n\ncdef {name} _read_{method.snake_name}(Cursor* at):\n"]
    groups = bit_groups(method.fields)
    if any(group[0].type == "bit" and not all(field.reserved for field in group) for group in groups):
        lines.append("    cdef uint8_t bits\n")
    lines.append(f"    cdef {name} method = {name}.__new__({name})\n")
    for group in groups:
        first = group[0]
        if first.type == "bit":
            visible = [(place, field) for place, field in enumerate(group) if not field.reserved]
            lines.append("    bits = cursor_u8(at)\n" if visible else "    cursor_u8(at)\n")
            lines += [f"    method.{field.name} = bits & {1 << place} != 0\n" for place, field in visible]
        else:
            lines.append(f"    {READERS[first.type]}\n" if first.reserved else f"    method.{first.name} = {READERS[first.type]}\n")
    lines.append("    return method\n")
    return "".join(lines)


def render_pyx(methods: list[MethodSpec]) -> str:
    lines = [FIRST_LINE, "# cython: auto_pickle=False\n", PYX_HEAD]
    lines += map(render_class, methods)
    lines.append("\n\nMETHODS = {\n")
    lines += [f"    {method.constant}: {method.class_name},\n" for method in methods]
    lines.append("}\n")
    lines += map(render_reader, methods)
    lines.append("\n\ncdef Method _read(uint32_t kind, Cursor* at):\n")
    for method in methods:
        name = method.class_name
        call = f"_read_{method.snake_name}(at)" if method.fields else f"{name}.__new__({name})"
        lines.append(f"    if kind == {method.constant}:\n        return {call}\n")
    lines.append("    return None\n")
    lines.append(PYX_TAIL)
    return "".join(lines)


def render_pyi(methods: list[MethodSpec]) -> str:
    lines = [FIRST_LINE, PYI_HEAD]
    for method in methods:
        lines.append(f"\nclass {method.class_name}(Method):\n")
        lines += [f"    {field.name}: {PYTHON_TYPES[field.type]}\n" for field in method.visible]
        if not method.visible:
            lines.append("    def __init__(self) -> None: ...\n")
            continue
        lines.append("    def __init__(\n        self,\n        *,\n")
        for field in method.visible:
            type_name = PYTHON_TYPES[field.type] + (" | None" if field.type == "table" else "")
            lines.append(f"        {field.name}: {type_name} = {field.default},\n")
        lines.append("    ) -> None: ...\n")
    lines.append("\nMETHODS: Final[dict[int, type[Method]]]\n\ndef decode_method(payload: bytes) -> Method: ...\n")
    return "".join(lines)


def render() -> dict[str, str]:
    """File name -> its whole text."""
    with TABLE.open("rb") as file:
        methods = read_methods(tomllib.load(file))
    return {"methods.pxd": render_pxd(methods), "methods.pyx": render_pyx(methods), "methods.pyi": render_pyi(methods)}


def main() -> None:
    for name, text in render().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
