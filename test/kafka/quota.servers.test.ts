// A broker whose quota for fetches is exceeded: it answers, then reads nothing more from the connection for a while.
import { randomUUID } from 'node:crypto';
import { expect, test } from 'vitest';
import { createTopic } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';
import { limitFetches } from '../support/fetch-quota.js';
import { send } from './send.js';
import { watchInTest } from './watch.js';

const { brokers } = sharedStack();

test('J5: a fetch quota mutes its own connection for longer than a request may take: no heartbeat is lost, no commit unknown, nothing rebalances', async () => {
  const topic = `quota-${randomUUID()}`;
  await createTopic(brokers, topic);
  await limitFetches(brokers, topic, 40_000);
  const count = 40;
  await send(
    brokers,
    topic,
    Array.from({ length: count }, (_, i) => `${i} ${'x'.repeat(10_000)}`),
  );
  // All in one fetch: more than the quota gives in ten seconds.
  const watching = watchInTest({
    brokers,
    topics: [topic],
    groupId: topic,
    clientId: topic,
    fromBeginning: true,
    heartbeatIntervalMs: 200,
    requestTimeoutMs: 2000,
    sessionTimeoutMs: 6000,
    rebalanceTimeoutMs: 20_000,
  });
  await watching.until(({ records }) => records.length === count);
  await send(brokers, topic, ['after']);
  const commits = (async () => {
    for (let next = 1; next <= count; next++) await watching.commit(watching.owned[0]!, next);
  })();
  await watching.until(({ values }) => values.includes('after'));
  await commits;
  expect(watching.lines.join()).toContain('a quota of the broker is exceeded');
  expect(watching.lines.filter((line) => /failed|got through|not known/.test(line))).toEqual([]);
  expect(watching.of('assigned')).toHaveLength(1);
});
