// A broker whose quota for fetches is exceeded: it answers, then reads nothing more from the connection for a while.
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { createTopic } from '../stack/clients.js';
import { jars, java } from '../stack/jars.js';
import { sharedStack } from '../stack/shared.js';
import { send } from './send.js';
import { watchInTest } from './watch.js';

const { brokers } = sharedStack();

async function limitFetches(clientId: string, bytesPerSecond: number): Promise<void> {
  const options = [
    '-Xmx128m',
    '-Dorg.slf4j.simpleLogger.defaultLogLevel=error',
    '-cp',
    join(await jars('kafka'), '*'),
    'kafka.admin.ConfigCommand',
  ];
  const quota = [
    '--alter',
    '--add-config',
    `consumer_byte_rate=${bytesPerSecond}`,
    '--entity-type',
    'clients',
    '--entity-name',
    clientId,
  ];
  await promisify(execFile)(java(), [...options, '--bootstrap-server', brokers.join(','), ...quota]);
}

test('J5: a fetch quota mutes its own connection for longer than a request may take: no heartbeat is lost, no commit unknown, nothing rebalances', async () => {
  const topic = `quota-${randomUUID()}`;
  await createTopic(brokers, topic);
  await limitFetches(topic, 40_000);
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
