/**
 * Envelopes around a record, told by their fields, and what to set so that the record itself comes. Pure.
 * Imports: nothing.
 */

export interface Envelope {
  /** Whose it is, to be read after "in". */
  readonly name: string;
  /** Where the record stands in it, as a path of fields. */
  readonly inner: readonly string[];
  readonly todo: string;
}

type Fields = Readonly<Record<string, unknown>>;

const isObject = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const has = (value: Fields, ...names: readonly string[]): boolean => names.every((name) => Object.hasOwn(value, name));

const UNWRAP = 'transforms=unwrap, transforms.unwrap.type=io.debezium.transforms.ExtractNewRecordState';
const transformOf = (path: string, guard = ''): string =>
  `or give the route a transform: (record) => ${guard}JSON.parse(record.value)${path}`;

/** Undefined: it is none of those that are known. */
export function envelopeOf(value: Fields): Envelope | undefined {
  const names = Object.keys(value);
  if (names.length === 2 && has(value, 'schema', 'payload')) {
    const inner = isObject(value.payload) ? envelopeOf(value.payload) : undefined;
    const without = 'set value.converter.schemas.enable=false in the connector or the worker of Kafka Connect';
    if (inner === undefined)
      return {
        name: "Kafka Connect's envelope {schema, payload}",
        inner: ['payload'],
        todo: `${without}, ${transformOf('.payload')}`,
      };
    return {
      name: `Kafka Connect's envelope {schema, payload}, and within it ${inner.name}`,
      inner: ['payload', ...inner.inner],
      todo: `${without}; then: ${inner.todo.replace('JSON.parse(record.value)', 'JSON.parse(record.value).payload')}`,
    };
  }
  if (
    has(value, 'op') &&
    (has(value, 'before', 'after') || has(value, 'after', 'source')) &&
    typeof value.op === 'string'
  ) {
    return {
      name: "Debezium's envelope {before, after, op, …}",
      inner: ['after'],
      todo: `set in the connector: ${UNWRAP}, ${transformOf('.after')}, which gives null, and so no row, for a deletion`,
    };
  }
  if (has(value, 'specversion', 'type', 'source', 'id'))
    return {
      name: "CloudEvents' envelope {specversion, type, …, data}",
      inner: ['data'],
      todo: `let the producer send the binary form, ${transformOf('.data')}`,
    };
  if (has(value, 'database', 'table', 'type', 'data')) {
    const several = Array.isArray(value.data);
    return {
      name: several
        ? "Canal's envelope {database, table, type, data: […]}"
        : "Maxwell's envelope {database, table, type, data}",
      inner: ['data'],
      todo: `give the route a transform: (record) => JSON.parse(record.value).data`,
    };
  }
  if (has(value, 'data', 'metadata') && isObject(value.metadata) && has(value.metadata, 'operation'))
    return {
      name: "AWS DMS's envelope {data, metadata}",
      inner: ['data'],
      todo: 'give the route a transform: (record) => JSON.parse(record.value).data',
    };
  if (has(value, 'op_type', 'table') && (has(value, 'after') || has(value, 'before')))
    return {
      name: "Oracle GoldenGate's envelope {table, op_type, after, …}",
      inner: ['after'],
      todo: 'give the route a transform: (record) => JSON.parse(record.value).after',
    };
  return undefined;
}

/**
 * The path to an object within the value, at most two fields deep, of whose fields most are wanted; undefined: there is
 * none.
 */
export function innerWith(
  value: Fields,
  isWanted: (name: string) => boolean,
  depth = 2,
): readonly string[] | undefined {
  for (const [name, inner] of Object.entries(value)) {
    if (!isObject(inner)) continue;
    if (Object.keys(inner).some(isWanted)) return [name];
    const deeper = depth > 1 ? innerWith(inner, isWanted, depth - 1) : undefined;
    if (deeper !== undefined) return [name, ...deeper];
  }
  return undefined;
}
