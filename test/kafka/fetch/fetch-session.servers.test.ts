// Fetch sessions of a real broker: it remembers what was asked for, and a session that it refuses costs one request.
import { randomUUID } from 'node:crypto';
import { expect, onTestFinished, test, vi } from 'vitest';
import { FetchSession, type SessionRequest } from '../../../src/kafka/fetch/fetch-session.js';
import { createTopic } from '../../stack/clients.js';
import { sharedStack } from '../../stack/shared.js';
import { send } from '../send.js';
import { watchInTest } from '../watch.js';

const { brokers } = sharedStack();
const PARTITIONS = 50;

test('J1: a fetch names all partitions once, then what moved; refused with 70 or 71 it names all again, and nothing is missed', async () => {
  const topic = `fetch-session-${randomUUID()}`;
  await createTopic(brokers, topic, { partitions: PARTITIONS });
  const sent: SessionRequest[] = [];
  let spoil: ((request: SessionRequest) => SessionRequest) | undefined;
  // eslint-disable-next-line @typescript-eslint/unbound-method -- called with its own
  const next = FetchSession.prototype.next;
  const spied = vi.spyOn(FetchSession.prototype, 'next').mockImplementation(function (this: FetchSession, wanted) {
    const request = next.call(this, wanted);
    const change = request.epoch > 0 ? spoil : undefined;
    if (change !== undefined) spoil = undefined;
    sent.push(change?.(request) ?? request);
    return sent.at(-1) as SessionRequest;
  });
  onTestFinished(() => spied.mockRestore());
  const watching = watchInTest({ brokers, topics: [topic], groupId: topic, fromBeginning: true });
  await watching.until(() => sent.some(({ epoch, partitions }) => epoch > 0 && partitions.length === 0));
  const whole = () => sent.filter(({ epoch, partitions }) => epoch === 0 && partitions.length === PARTITIONS).length;
  const before = whole();
  // While partitions begin, the share of the byte budget that each may ask for changes with every one of them.
  const begun = sent.length;
  const write = async (partition: number, value: string) => {
    await send(brokers, topic, [{ partition, value }]);
    await watching.until(({ values }) => values.includes(value));
  };

  for (let i = 0; i < 5; i++) await write(i, `quiet ${i}`);
  expect(whole()).toBe(before);
  const later = sent.slice(begun).map(({ partitions }) => partitions.length);
  expect(later.length).toBeGreaterThanOrEqual(5);
  expect(Math.max(...later)).toBeLessThan(PARTITIONS / 2);

  for (const [i, change] of [
    (r: SessionRequest) => ({ ...r, id: r.id ^ 1 }),
    (r: SessionRequest) => ({ ...r, epoch: r.epoch + 5 }),
  ].entries()) {
    spoil = change;
    await watching.until(() => whole() === before + i + 1);
    await write(10 + i, `refused ${i}`);
  }
  await write(10, 'after');
  expect(watching.values.toSorted()).toEqual([
    'after',
    ...[0, 1, 2, 3, 4].map((i) => `quiet ${i}`),
    'refused 0',
    'refused 1',
  ]);
  expect(watching.of('assigned')).toHaveLength(PARTITIONS);
});
