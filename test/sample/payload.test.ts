// What is said of values that are not what ClickHouse is sent: the format by its name, and what to set.
import { describe, expect, test } from 'vitest';
import { envelopeOf, innerWith } from '../../src/sample/envelope.js';
import { unusableValue } from '../../src/sample/payload.js';

const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex');

describe('F3: a value in another format is told by its name', () => {
  test.each([
    [
      'Confluent, Avro',
      hex('00 00000001 02 06 61 62 63'),
      /frame of a schema registry, as Confluent's/,
      /value\.converter|transform/,
    ],
    [
      'Confluent, JSON Schema',
      Buffer.concat([hex('00 00000007'), Buffer.from('{"id":1}')]),
      /^JSON behind Confluent's five bytes/,
      /subarray\(5\)/,
    ],
    ['Apicurio', hex('00 0000000000000002 02 06 61 62 63'), /Apicurio/, /transform/],
    ['Glue', Buffer.concat([hex('03 00 00112233445566778899aabbccddeeff'), hex('0206')]), /AWS Glue/, /transform/],
    ['an Avro container', Buffer.concat([Buffer.from('Obj'), hex('01 04')]), /Avro container/, /transform/],
    ['a single Avro object', hex('c301 0011223344556677 02'), /Avro single/, /transform/],
    ['Protobuf', hex('08 96 01 12 07 74 65 73 74 69 6e 67'), /^Protobuf, as it seems/, /transform/],
    ['MessagePack', hex('82 a2 69 64 01 a4 6e 61 6d 65 a1 78'), /MessagePack/, /transform/],
    ['gzip', hex('1f8b 0800'), /gzip/, /compression\.type/],
    ['a byte order mark', Buffer.concat([hex('efbbbf'), Buffer.from('{}')]), /byte order mark/, /subarray\(3\)/],
    ['encoded twice', Buffer.from(JSON.stringify('{"id":1}')), /encoded twice/, /JSON\.parse\(JSON\.parse/],
    ['an array', Buffer.from('[{"id":1}]'), /JSON array/, /transform/],
    ['several objects', Buffer.from('{"id":1}\n{"id":2}\n'), /several JSON objects/, /one a message/],
    ['CSV', Buffer.from('1,2,"x"\n'), /text that is not JSON/, /transform/],
    ['XML', Buffer.from('<a/>'), /XML/, /transform/],
    ['broken JSON', Buffer.from('{"id":'), /not one JSON object: the value is cut off/, /mend the producer/],
    ['a tombstone', null, /tombstones/, /transform that gives null/],
  ])('%s', (_what, value, kind, todo) => {
    const why = unusableValue(value, 0);
    expect(why?.kind).toMatch(kind);
    expect(why?.todo).toMatch(todo);
  });

  test('one JSON object is told nothing of', () => {
    for (const text of ['{}', ' {"a":[1,{"b":null}]}\n', '{"schema":1}'])
      expect(unusableValue(Buffer.from(text), 0)).toBeUndefined();
  });
});

describe('F3: an envelope is told by its name, and where the record stands in it', () => {
  const debezium = { before: null, after: { id: 1 }, source: { db: 'd' }, op: 'c', ts_ms: 1 };
  test.each([
    [
      'Kafka Connect',
      { schema: { type: 'struct' }, payload: { id: 1 } },
      /Kafka Connect's/,
      ['payload'],
      /schemas\.enable=false/,
    ],
    ['Debezium', debezium, /Debezium's/, ['after'], /ExtractNewRecordState/],
    [
      'both',
      { schema: {}, payload: debezium },
      /Kafka Connect's.*Debezium's/,
      ['payload', 'after'],
      /schemas\.enable=false.*record\.value\)\.payload\.after/,
    ],
    [
      'CloudEvents',
      { specversion: '1.0', id: 'a', source: '/s', type: 't', data: { id: 1 } },
      /CloudEvents/,
      ['data'],
      /\.data/,
    ],
    ['Maxwell', { database: 'd', table: 't', type: 'insert', ts: 1, data: { id: 1 } }, /Maxwell/, ['data'], /\.data/],
    ['Canal', { database: 'd', table: 't', type: 'INSERT', data: [{ id: 1 }] }, /Canal/, ['data'], /\.data/],
    ['DMS', { data: { id: 1 }, metadata: { operation: 'load' } }, /DMS/, ['data'], /\.data/],
  ])('%s', (_what, value, name, inner, todo) => {
    const found = envelopeOf(value);
    expect(found?.name).toMatch(name);
    expect(found?.inner).toEqual(inner);
    expect(found?.todo).toMatch(todo);
  });

  test('a record with fields of such names is none', () => {
    for (const value of [{ op: 'x' }, { id: 1, payload: {}, schema: {} }, { before: 1, after: 2 }, {}])
      expect(envelopeOf(value)).toBeUndefined();
    expect(innerWith({ a: 1, b: { c: { id: 1 } } }, (name) => name === 'id')).toEqual(['b', 'c']);
    expect(innerWith({ a: 1, b: { c: 1 } }, (name) => name === 'id')).toBeUndefined();
  });
});
