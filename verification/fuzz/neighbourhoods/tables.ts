// Tables over the column types of ClickHouse, each with values that fit its column, and values that come close.

export interface FuzzTable {
  readonly name: string;
  /** The type of the column `v`. */
  readonly type: string;
  /** A value is read the same whatever stands beside it. A Dynamic prefers a type that the block has already. */
  readonly isReadAlone: boolean;
  /** Columns of provenance; the first three are always there. */
  readonly more: string;
  /** JSON texts for `v` that are taken. */
  readonly good: readonly string[];
  /** JSON texts that may be refused. */
  readonly near: readonly string[];
  /** What is selected for `v`. An Enum is read by its number: one that has no name cannot be read as it is, by anybody. */
  readonly read: string;
  /** Can the server read what is stored, as it is? */
  readonly isReadable: (stored: string) => boolean;
  /** How a text becomes a member of the record. */
  readonly member: (text: string) => string;
}

/** Texts that some type or other refuses, reads as another value, or reads with another reader. */
const anywhere: readonly string[] = [
  'null',
  '""',
  '"x"',
  '0',
  '1',
  '-1',
  '1.5',
  '1e3',
  'true',
  '[]',
  '{}',
  '[1]',
  '["a"]',
  '{"a":1}',
  '[null]',
  '[[1]]',
  '[[[[]]]]',
  '{"a":{"b":[{"c":null}]}}',
  '"\\ud800"',
  '"\\udc00x"',
  '"\\u0000"',
  '1e400',
  '18446744073709551616',
  '-9223372036854775809',
  '"2024-01-02"',
  '"2024-01-02 03:04:05"',
  '"(at row 1)"',
  '"(at row 7): while pushing to view default.mv"',
  '"},{"',
  '"[}"',
  '"\\"}"',
  '"\\\\"',
  '{"a":1,"a":2}',
  '{"":""}',
  '[1,"a",null,{}]',
  '[{"a":1},{"a":"x"}]',
  '{"a":[1,{"b":2}],"a.b":3}',
  '"\u2028"',
  '"é"',
  '"\x80"',
  '"is violated at row 1"',
  `"${'long '.repeat(60)}"`,
  `[${'['.repeat(40)}${']'.repeat(40)}]`,
];

const plain = (text: string): string => `"v":${text}`;
const basic = {
  isReadAlone: true,
  read: 'v',
  isReadable: (): boolean => true,
  more: '',
  near: [] as readonly string[],
  member: plain,
};

const columns: readonly FuzzTable[] = [
  {
    ...basic,
    name: 'string',
    type: 'String',
    good: ['""', '"a"', '"{}"', '"[}"', '"\\n\\u0041"', '1', 'true', '[1,2]', '{"a":1}'],
  },
  { ...basic, name: 'low_cardinality', type: 'LowCardinality(String)', good: ['"a"', '"b"', '""'] },
  { ...basic, name: 'nullable_string', type: 'Nullable(String)', good: ['null', '"a"', '"null"'] },
  { ...basic, name: 'nullable_int', type: 'Nullable(Int32)', good: ['null', '7', '"7"'] },
  { ...basic, name: 'fixed_string', type: 'FixedString(4)', good: ['"abcd"', '"a"', '""'], near: ['"abcde"'] },
  {
    ...basic,
    name: 'uint8',
    type: 'UInt8',
    good: ['0', '255', '"7"', 'true'],
    near: ['256', '-1', '1.0', '01'.slice(1)],
  },
  { ...basic, name: 'uint64', type: 'UInt64', good: ['0', '18446744073709551615', '"18446744073709551615"'] },
  { ...basic, name: 'int256', type: 'Int256', good: ['0', '-1', '"123456789012345678901234567890"'] },
  { ...basic, name: 'float64', type: 'Float64', good: ['0', '1.5', '-1e10', '"inf"', '"nan"'] },
  {
    ...basic,
    name: 'decimal',
    type: 'Decimal(18, 4)',
    good: ['0', '1.2345', '"1.5"', '-7'],
    near: ['1.23456', '100000000000000000000', '1e30'],
  },
  { ...basic, name: 'bool', type: 'Bool', good: ['true', 'false', '1', '0'], near: ['2', '"true"', '"1"'] },
  {
    ...basic,
    name: 'date',
    type: 'Date',
    good: ['"2024-01-02"', '19000'],
    near: ['"2024-01-02T03:04:05Z"', '"2024-13-02"', '"24-1-2"'],
  },
  {
    ...basic,
    name: 'datetime',
    type: 'DateTime',
    good: ['"2024-01-02 03:04:05"', '"2024-01-02T03:04:05Z"', '1704164645'],
    near: ['"2024-01-02T03:04:05.123456789+09:00"', '"yesterday"', '1704164645000'],
  },
  {
    ...basic,
    name: 'datetime64',
    type: 'DateTime64(3)',
    good: ['"2024-01-02T03:04:05.678Z"', '1704164645678'],
    near: ['"2024-01-02"', '1704164645.678', '"1704164645678"'],
  },
  {
    ...basic,
    name: 'uuid',
    type: 'UUID',
    good: ['"0f3c1a2b-0000-4000-8000-123456789abc"'],
    near: ['"0f3c1a2b00004000800012345678-9abc"', '"zf3c1a2b-0000-4000-8000-123456789abc"', '"0f3c"'],
  },
  {
    ...basic,
    name: 'ipv4',
    type: 'IPv4',
    good: ['"127.0.0.1"', '"1.2.3.4"'],
    near: ['"1.2.3"', '"1.2.3.4.5"', '"256.1.1.1"'],
  },
  { ...basic, name: 'ipv6', type: 'IPv6', good: ['"::1"', '"2001:db8::1"'], near: ['"1.2.3.4"', '"::g"'] },
  {
    ...basic,
    name: 'enumeration',
    read: "CAST(v, 'Int8')",
    isReadable: (stored) => /^ ?[12]\]$/.test(stored),
    type: "Enum8('a' = 1, 'b' = 2)",
    good: ['"a"', '"b"', '1', '2'],
    near: ['3', '"c"', '"1"'],
  },
  {
    ...basic,
    name: 'map_string',
    type: 'Map(String, String)',
    good: ['{}', '{"a":"b"}', '{"a":"b","c":"d"}'],
    near: ['{"a":1}', '{"a":{}}', '{"a":[]}'],
  },
  {
    ...basic,
    name: 'map_int',
    type: 'Map(LowCardinality(String), UInt32)',
    good: ['{}', '{"a":1}'],
    near: ['{"a":"x"}', '{"a":-1}'],
  },
  {
    ...basic,
    name: 'array_string',
    type: 'Array(String)',
    good: ['[]', '["a"]', '["[","}","]"]'],
    near: ['["a",1]', '[{}]', '[["a"]]'],
  },
  {
    ...basic,
    name: 'array_nullable',
    type: 'Array(Nullable(Int32))',
    good: ['[]', '[1,null]', '["1"]'],
    near: ['[1.5]', '["x"]', '[{}]'],
  },
  {
    ...basic,
    name: 'array_array',
    type: 'Array(Array(UInt64))',
    good: ['[]', '[[]]', '[[1],[2,3]]'],
    near: ['[1]', '[[1],2]', '[[[1]]]'],
  },
  {
    ...basic,
    name: 'tuple',
    type: 'Tuple(a UInt32, b String)',
    good: ['{"a":1,"b":"x"}', '{"a":1}', '{"b":"y"}', '{"a":1,"z":2}'],
    near: ['[1,"x"]', '{"a":"x"}', '{"a":{}}'],
  },
  {
    ...basic,
    name: 'nested',
    type: 'Nested(k String, w UInt32)',
    good: ['"v.k":["a"],"v.w":[1]', '"v.k":[],"v.w":[]', '"v.k":["a","b"],"v.w":[1,2]'],
    near: [
      '"v.k":["a"],"v.w":[]',
      '"v.k":["a"]',
      '"v.k":"a","v.w":1',
      '"v":[{"k":"a","w":1}]',
      '"v":{"k":["a"],"w":[1]}',
    ],
    member: (text) => (text.startsWith('"v') ? text : plain(text)),
  },
  {
    ...basic,
    name: 'json',
    isReadAlone: false,
    type: 'JSON',
    good: ['{}', '{"a":1}', '{"a":{"b":[1,2]}}', 'null', '{"a":[{"b":1},{"b":"x"}]}'],
    near: [
      '{"a":NaN}'.replace('NaN', '1e400'),
      '{"a":18446744073709551616}',
      '{"a":1,"a":2}',
      '{"a.b":1,"a":{"b":2}}',
      '{"a":1,"a":{"b":2}}',
    ],
  },
  {
    ...basic,
    name: 'json_typed',
    isReadAlone: false,
    type: 'JSON(a UInt32, max_dynamic_paths = 2)',
    good: ['{}', '{"a":1}', '{"a":1,"b":2,"c":3,"d":"x"}'],
    near: ['{"a":"x"}', '{"a":-1}', '{"a":{}}'],
  },
  {
    ...basic,
    name: 'dynamic',
    isReadAlone: false,
    type: 'Dynamic',
    good: ['1', '"a"', '[1,2]', 'null', 'true', '1.5', '"2024-01-02"'],
  },
  { ...basic, name: 'variant', type: 'Variant(UInt64, String, Array(UInt64))', good: ['1', '"a"', '[1,2]', 'null'] },
  {
    ...basic,
    name: 'all_provenance',
    type: 'String',
    more: ', _timestamp DateTime64(3), _key Nullable(String), _headers Map(String, String)',
    good: ['"a"', '{"a":1}', '[]'],
  },
];

export const tables: readonly FuzzTable[] = columns.map((table) => ({ ...table, near: [...table.near, ...anywhere] }));

export const provenanceNames = (table: FuzzTable): readonly string[] => [
  '_topic',
  '_partition',
  '_offset',
  ...(table.more === '' ? [] : ['_timestamp', '_key', '_headers']),
];
