/**
 * What a value is that is not one JSON object: formats with a mark of their own, and what to set. Pure.
 * Imports: kernel.
 */
import { faultText, type ReservedNames, valueFault } from '../kernel/index.js';

export interface Unusable {
  /** What the value is, to be read after "is" or "are". Values of one kind are told together. */
  readonly kind: string;
  /** What to do about it. */
  readonly todo: string;
  /** Confluent's five bytes stand before it: the id of a schema from the second one on. */
  readonly hasSchemaId?: boolean;
}

const JSON_CONVERTER =
  'let the producer write plain JSON (Kafka Connect: value.converter=org.apache.kafka.connect.json.JsonConverter, ' +
  'value.converter.schemas.enable=false)';
const DECODE = 'or decode it: a route with a transform makes rows of values of any kind';
const producerOr = `${JSON_CONVERTER}, ${DECODE}`;

interface Mark extends Unusable {
  readonly is: (value: Buffer) => boolean;
}

const CONFLUENT_HEAD_BYTES = 5;
const GLUE_HEAD_BYTES = 18;
const startsWith =
  (...bytes: readonly number[]) =>
  (value: Buffer) =>
    bytes.every((byte, at) => value[at] === byte);

const marks: readonly Mark[] = [
  {
    kind: "JSON behind Confluent's five bytes (0x00 and a schema id: JSON Schema)",
    hasSchemaId: true,
    todo: `send it without a schema registry, ${DECODE}: (record) => JSON.parse(record.value.subarray(5))`,
    is: (value) =>
      value[0] === 0 && value.length > CONFLUENT_HEAD_BYTES && isObject(value.subarray(CONFLUENT_HEAD_BYTES)),
  },
  {
    kind: "Avro or Protobuf in Apicurio Registry's frame (0x00 and an id of eight bytes)",
    todo: producerOr,
    is: (value) => value[0] === 0 && value.length > 9 && value.readUInt32BE(1) === 0 && value.readUInt32BE(5) > 0,
  },
  {
    kind: "in the frame of a schema registry, as Confluent's (0x00 and a schema id of four bytes): Avro or Protobuf",
    hasSchemaId: true,
    todo: producerOr,
    is: (value) => value[0] === 0 && value.length > CONFLUENT_HEAD_BYTES,
  },
  {
    kind: 'in the frame of AWS Glue Schema Registry (0x03 and a schema version id)',
    todo: producerOr,
    is: (value) => value[0] === 3 && (value[1] === 0 || value[1] === 5) && value.length > GLUE_HEAD_BYTES,
  },
  { kind: 'Avro container files ("Obj" and 0x01)', todo: producerOr, is: startsWith(0x4f, 0x62, 0x6a, 1) },
  { kind: 'Avro single objects (0xc3 0x01 and a fingerprint)', todo: producerOr, is: startsWith(0xc3, 1) },
  {
    kind: 'JSON behind a byte order mark',
    todo: `let the producer leave the mark away, ${DECODE}: (record) => JSON.parse(record.value.subarray(3))`,
    is: startsWith(0xef, 0xbb, 0xbf),
  },
  {
    kind: 'compressed by the producer itself (gzip)',
    todo: `use compression.type of the producer instead, which is undone on the way, ${DECODE}`,
    is: startsWith(0x1f, 0x8b),
  },
  {
    kind: 'compressed by the producer itself (zstd)',
    todo: `use compression.type of the producer instead, which is undone on the way, ${DECODE}`,
    is: startsWith(0x28, 0xb5, 0x2f, 0xfd),
  },
  { kind: 'Smile (binary JSON)', todo: producerOr, is: startsWith(0x3a, 0x29, 0x0a) },
  { kind: 'MessagePack', todo: producerOr, is: (value) => isMessagePackMap(value) },
  {
    kind: 'a JSON object within a JSON string: encoded twice',
    todo: `let the producer encode it once, ${DECODE}: (record) => JSON.parse(JSON.parse(record.value))`,
    is: isEncodedTwice,
  },
  {
    kind: 'a JSON array',
    todo:
      `let the producer send an object a message, ${DECODE}: (record) => JSON.parse(record.value), which ` +
      'makes a row of each element',
    is: (value) => firstCharacter(value) === '[',
  },
  {
    kind: 'several JSON objects in one message',
    todo: `let the producer send one a message, ${DECODE}`,
    is: isSeveralObjects,
  },
  { kind: 'XML', todo: producerOr, is: (value) => firstCharacter(value) === '<' },
  {
    kind: 'Protobuf, as it seems',
    todo: producerOr,
    is: (value) => isProtobuf(value) && (!isText(value) || value[0] === 0x0a),
  },
  { kind: 'text that is not JSON (CSV or a log line, as it seems)', todo: producerOr, is: isText },
];

/** Undefined: the value is one JSON object, and has no field that a provenance column of the table takes. */
export function unusableValue(value: Buffer | null, reserved: ReservedNames): Unusable | undefined {
  if (value === null)
    return {
      kind: 'tombstones (messages without a value)',
      todo:
        'set onTombstone to "skip"; or a transform that gives null for them leaves them out: (record) => ' +
        'record.value',
    };
  const fault = valueFault(value, 0, value.length, reserved);
  if (fault === undefined) return undefined;
  const mark =
    firstCharacter(value) === '{' && !isSeveralObjects(value) ? undefined : marks.find(({ is }) => is(value));
  return (
    mark ?? { kind: `not one JSON object: the value ${faultText(fault, value)}`, todo: `mend the producer, ${DECODE}` }
  );
}

function firstCharacter(value: Buffer): string {
  return /^\s*(\S)/.exec(value.toString('latin1', 0, 64))?.[1] ?? '';
}

function isObject(value: Buffer): boolean {
  return valueFault(value) === undefined;
}

function isEncodedTwice(value: Buffer): boolean {
  if (firstCharacter(value) !== '"') return false;
  const inner = parsed(value.toString());
  return typeof inner === 'string' && isObject(Buffer.from(inner));
}

function isSeveralObjects(value: Buffer): boolean {
  const lines = value
    .toString()
    .split('\n')
    .filter((line) => line.trim() !== '');
  return lines.length > 1 && lines.every((line) => isObject(Buffer.from(line)));
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/** A map whose first key is a short string. */
function isMessagePackMap(value: Buffer): boolean {
  const [first = 0] = value;
  const key = (first & 0xf0) === 0x80 ? value[1] : first === 0xde ? value[3] : undefined;
  return key !== undefined && ((key & 0xe0) === 0xa0 || key === 0xd9) && !isText(value);
}

function isText(value: Buffer): boolean {
  const text = value.toString('utf8');
  return !text.includes('\uFFFD') && /^[^\u0000-\u0008\u000e-\u001f]+$/.test(text);
}

/** Goes field by field from the first byte to the last; text hardly ever does. */
function isProtobuf(value: Buffer): boolean {
  let at = 0;
  const varint = (): number => {
    let result = 0;
    for (let factor = 1; at < value.length; factor *= 128) {
      const byte = value[at++] ?? 0;
      result += (byte & 127) * factor;
      if (byte < 128) return result;
      if (factor > 128 ** 8) break;
    }
    return Number.NaN;
  };
  while (at < value.length) {
    const tag = varint();
    const wireType = tag & 7;
    if (!(tag >= 8) || ![0, 1, 2, 5].includes(wireType)) return false;
    const bytes = wireType === 2 ? varint() : wireType === 1 ? 8 : wireType === 5 ? 4 : 0;
    if (wireType === 0 && Number.isNaN(varint())) return false;
    if (Number.isNaN(bytes)) return false;
    at += bytes;
  }
  return at === value.length && value.length > 0;
}
