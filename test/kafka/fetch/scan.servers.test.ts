import { randomUUID } from 'node:crypto';
import { expect, test } from 'vitest';
import { LogScan, type ScannedChunk } from '../../../src/kafka/fetch/scan.js';
import { createTopic, deleteRecordsBefore, produce } from '../../stack/clients.js';
import { sharedStack } from '../../stack/shared.js';

test('a range of the log is read without a group: holes are no records, what retention took is told, and an end that is not there is an error', async () => {
  const { brokers } = sharedStack();
  const topic = `scan_${randomUUID().slice(0, 8)}`;
  await createTopic(brokers, topic, { partitions: 2 });
  const records = (count: number) => Array.from({ length: count }, (_, i) => ({ partition: 1, value: `v${i}` }));
  await produce(brokers, topic, records(10)); // 0-9
  await produce(brokers, topic, records(2), { transactional: 'abort' }); // 10-11, and 12 is its marker
  await produce(brokers, topic, records(5)); // 13-17
  const scan = new LogScan({ brokers, groupId: topic, topics: [topic] });
  const read = async (first: number, last: number) => {
    const chunks: ScannedChunk[] = [];
    for await (const chunk of scan.read({ topic, partition: 1, first, last })) chunks.push(chunk);
    return chunks;
  };
  try {
    const whole = await read(3, 15);
    expect(whole.flatMap((chunk) => chunk.records.map(({ offset }) => offset))).toEqual([
      3, 4, 5, 6, 7, 8, 9, 13, 14, 15,
    ]);
    whole.forEach((chunk, i) => expect(chunk.first).toBe(i === 0 ? 3 : whole[i - 1]!.last + 1));
    expect(whole.at(-1)).toMatchObject({ last: 15, isGone: false });
    expect((await read(10, 12)).flatMap((chunk) => [...chunk.records])).toEqual([]);
    expect(await read(5, 4)).toEqual([]);

    await deleteRecordsBefore(brokers, topic, 1, 6n);
    const [gone, ...rest] = await read(2, 9);
    expect(gone).toEqual({ first: 2, last: 5, records: [], isGone: true });
    expect(rest.flatMap((chunk) => chunk.records.map(({ offset }) => offset))).toEqual([6, 7, 8, 9]);
    expect(await read(0, 3)).toEqual([{ first: 0, last: 3, records: [], isGone: true }]);
    await expect(read(30, 31)).rejects.toMatchObject({
      code: 'KCR_OFFSET_RANGE',
      fields: { partition: 1, offset: 30 },
    });
  } finally {
    await scan.close();
  }
});
