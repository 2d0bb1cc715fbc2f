// Brokers as they are met at the start: named by an IPv6 address, silent, behind a listener that is meant for others.
import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { expect, onTestFinished, test, vi } from 'vitest';
import { insist } from '../../src/kafka/connection/until-coordinator.js';
import { groupNow } from '../../src/kafka/group-admin.js';
import { sourceSettings } from '../../src/kafka/options.js';
import { checkKafka } from '../../src/kafka/preflight.js';
import { openConnection } from '../../src/kafka/connection/kafka-connection.js';
import { createTopic } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';
import { silentAfter } from '../support/silent-after.js';

const UNREACHED_PORT = 1;
const broker = () => sharedStack().brokers[0]!;

async function listening(server: Server, host: string): Promise<number> {
  server.listen(0, host);
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  return (server.address() as AddressInfo).port;
}

/** A way to the broker from another address; `change` sees its answers. */
async function wayToBroker(host: string, change: (bytes: Buffer) => Buffer = (bytes) => bytes): Promise<number> {
  const [name, port] = broker().split(':');
  const server = createServer((client: Socket) => {
    const behind = connect(Number(port), name);
    for (const socket of [client, behind])
      socket.on('error', () => undefined).on('close', () => [client, behind].forEach((each) => each.destroy()));
    onTestFinished(() => void client.destroy());
    client.pipe(behind);
    behind.on('data', (bytes) => client.write(change(bytes)));
  });
  return listening(server, host);
}

async function topic(name: string): Promise<string> {
  const unique = `start-${name}-${Date.now()}`;
  await createTopic([broker()], unique);
  return unique;
}

test('G4: a broker of the list that accepts and says nothing is passed over: the next one is asked', async () => {
  const silent = await silentAfter(broker(), 0);
  onTestFinished(() => silent.stop());
  const name = await topic('silent');
  const brokers = [silent.address, broker()];
  expect((await checkKafka({ brokers, topics: [name] })).topics).toEqual([{ topic: name, partitions: 1 }]);
  expect((await groupNow({ brokers, topics: [name], groupId: name })).partitions).toHaveLength(1);
  const kafka = openConnection(sourceSettings({ brokers, topics: [name], groupId: name, requestTimeoutMs: 1_000 }));
  onTestFinished(() => kafka.end());
  await kafka.cluster.connect();
  expect(silent.isSilenced).toBe(true);
});

test('G4: when all are silent it ends, and says so', async () => {
  const silent = await silentAfter(broker(), 0);
  onTestFinished(() => silent.stop());
  await expect(checkKafka({ brokers: [silent.address], topics: ['t'] })).rejects.toMatchObject({
    code: 'KCR_KAFKA_UNREACHABLE',
  });
});

test('G9: a broker that is named by its IPv6 address', async () => {
  const name = await topic('ipv6');
  const brokers = [`[::1]:${await wayToBroker('::1')}`];
  expect((await checkKafka({ brokers, topics: [name] })).topics).toEqual([{ topic: name, partitions: 1 }]);
});

test('G12: a coordinator that loads is waited for, and not beyond the limit', async () => {
  const loading = Object.assign(new Error('loading'), { type: 'GROUP_LOAD_IN_PROGRESS' });
  let asked = 0;
  expect(
    await insist(async () => {
      asked += 1;
      if (asked < 4) throw loading;
      return 'there';
    }),
  ).toBe('there');
  expect(asked).toBe(4);
  await expect(insist(() => Promise.reject(loading), 100)).rejects.toBe(loading);
  await expect(
    insist(() => Promise.reject(new Error('no'))),
    'what is no matter of the coordinator',
  ).rejects.toThrow('no');
});

test('F7: an advertised listener that nobody reaches from here is named, with the address that was given', async () => {
  const name = await topic('advertised');
  const port = Buffer.alloc(4);
  port.writeInt32BE(Number(broker().split(':')[1]));
  const elsewhere = Buffer.alloc(4);
  elsewhere.writeInt32BE(UNREACHED_PORT);
  const own = await wayToBroker('127.0.0.1', (bytes) => {
    const at = bytes.indexOf(Buffer.concat([Buffer.from('127.0.0.1'), port]));
    return at === -1 ? bytes : Buffer.concat([bytes.subarray(0, at + 9), elsewhere, bytes.subarray(at + 13)]);
  });
  const check = checkKafka({ brokers: [`127.0.0.1:${own}`], topics: [name] }).then(() =>
    groupNow({ brokers: [`127.0.0.1:${own}`], topics: [name], groupId: name }),
  );
  await expect(check).rejects.toMatchObject({
    code: 'KCR_KAFKA_UNREACHABLE',
    message: expect.stringMatching(
      new RegExp(
        `answers at 127\\.0\\.0\\.1:${own} and gives the address 127\\.0\\.0\\.1:${UNREACHED_PORT}.*advertised\\.listeners`,
      ),
    ) as string,
  });
});

test('F7: a login at a listener that takes none', async () => {
  const sasl = { mechanism: 'plain', username: 'me', password: 'hunter2' } as const;
  const check = checkKafka({ brokers: [broker()], topics: ['t'], sasl });
  await expect(check).rejects.toMatchObject({
    code: 'KCR_PREFLIGHT',
    message: expect.stringMatching(/takes no login, and kafka\.sasl is set/) as string,
  });
  await expect(check).rejects.not.toThrow(/hunter2/);
});

test('F7: an HTTP server where a broker should be', async () => {
  const port = await listening(
    createHttpServer((_incoming, outgoing) => void outgoing.end('<html>')),
    '127.0.0.1',
  );
  await expect(checkKafka({ brokers: [`127.0.0.1:${port}`], topics: ['t'] })).rejects.toThrow(
    /an HTTP server answers, not Kafka/,
  );
});

test('G11: no timer is set for a time before now, of which Node 24 warns at each start', async () => {
  const name = await topic('timers');
  const timers = vi.spyOn(globalThis, 'setTimeout');
  onTestFinished(() => timers.mockRestore());
  await groupNow({ brokers: [broker()], topics: [name], groupId: name });
  const delays = timers.mock.calls.map(([, delay]) => delay ?? 0);
  expect(delays.length).toBeGreaterThan(0);
  expect(delays.filter((delay) => delay < 0)).toEqual([]);
});
