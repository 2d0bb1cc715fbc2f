// `peek` at real topics: what a reader of committed records would get, from either end, an offset or a time.
import { expect, test } from 'vitest';
import { groupNow } from '../../src/kafka/group-admin.js';
import { produce } from '../stack/clients.js';
import { Place } from './place.js';

interface Line {
  readonly partition: number;
  readonly offset: number;
  readonly value: string | { readonly base64: string } | null;
  readonly looksLike: string;
}

async function peeked(at: Place, ...args: readonly string[]): Promise<readonly Line[]> {
  const { code, stdout, stderr } = await at.run('peek', '--json', ...args);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return stdout
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Line);
}

const places = (lines: readonly Line[]) => lines.map(({ partition, offset }) => `${partition}/${offset}`);

test('the last records of each partition, the first, from an offset and from a time, and nobody joins the group or commits', async () => {
  const at = await Place.make({ partitions: 2 });
  const record = (id: number, partition: number, timestamp: number) => ({
    value: JSON.stringify({ id }),
    partition,
    timestamp: String(timestamp),
  });
  const base = Date.UTC(2026, 0, 1);
  await produce(
    at.stack.brokers,
    at.name,
    Array.from({ length: 12 }, (_, id) => record(id, id % 2, base + id * 60_000)),
  );
  expect(places(await peeked(at, '--count', '4'))).toEqual(['0/4', '0/5', '1/4', '1/5']);
  expect(places(await peeked(at, '--count', '3', '--from', 'beginning'))).toEqual(['0/0', '0/1', '1/0']);
  expect(places(await peeked(at, '--partition', '1', '--from', '4'))).toEqual(['1/4', '1/5']);
  expect(places(await peeked(at, '--from', '2026-01-01T00:10:00Z'))).toEqual(['0/5', '1/5']);
  expect(places(await peeked(at, '--from', '2027-01-01'))).toEqual([]);
  const { members, partitions } = await groupNow({ brokers: at.stack.brokers, groupId: at.name, topics: [at.name] });
  expect(members).toEqual([]);
  expect(partitions.map(({ committed }) => committed)).toEqual([undefined, undefined]);
});

test('bytes that are no text come back as they were, and a topic without a route is refused with those that have one', async () => {
  const at = await Place.make();
  const bytes = Buffer.from([0, 0, 0, 0, 7, 0xff, 0xfe]);
  await produce(at.stack.brokers, at.name, [{ value: bytes, partition: 0 }]);
  const [line] = await peeked(at);
  expect(line!.value).toEqual({ base64: bytes.toString('base64') });
  expect(line!.looksLike).toContain('schema id 7');
  const missing = await at.run('peek', '--topic', 'elsewhere');
  expect(missing.code).toBe(2);
  expect(missing.stderr).toContain(`topics with a route: ${at.name}`);
});
