import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { crc32c, tableCrc32c } from '../../../src/kafka/fetch/crc32c.js';
import { crc32cOf } from '../bytes.js';

test("the checksum of a batch is Kafka's, whichever way it is counted: else every batch would be refused, or none", () => {
  for (const count of [crc32c, tableCrc32c, crc32cOf]) {
    expect(count(Buffer.from('123456789'))).toBe(0xe3069283);
    expect(count(Buffer.alloc(32))).toBe(0x8a9136aa); // RFC 3720, B.4
    expect(count(Buffer.alloc(0))).toBe(0);
  }
  for (let length = 1; length < 70; length++) {
    const data = randomBytes(length + 3).subarray(3);
    expect([crc32c(data), tableCrc32c(data)]).toEqual([crc32cOf(data), crc32cOf(data)]);
  }
});
