// TLS and logins against a real broker: what lets one in, and what is said when it does not.
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { checkKafka } from '../../src/kafka/preflight.js';
import type { KafkaSourceOptions, SaslOptions } from '../../src/kafka/source.js';
import { createTopic } from '../stack/clients.js';
import { jars, java } from '../stack/jars.js';
import { kafkaServer } from '../stack/kafka.js';
import { freePort, type ServerProcess } from '../stack/process.js';
import { send as produce } from './send.js';
import { Watch } from './watch.js';

const run = promisify(execFile);
const PASSWORD = 'only-for-tests';
const topic = 'secured';

let server: ServerProcess;
let dir: string;
let secured: string[];
let ca: string;

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'kafka-security-'));
  ca = await makeCertificate();
  const port = await freePort();
  secured = [`localhost:${port}`];
  server = await kafkaServer(dir, {
    listeners: [`SECURED://localhost:${port}`],
    properties: {
      'listener.security.protocol.map': 'CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SECURED:SASL_SSL',
      'listener.name.secured.ssl.keystore.location': join(dir, 'keystore.p12'),
      'listener.name.secured.ssl.keystore.password': PASSWORD,
      'listener.name.secured.ssl.keystore.type': 'PKCS12',
      'listener.name.secured.sasl.enabled.mechanisms': 'PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER',
      'listener.name.secured.plain.sasl.jaas.config': `org.apache.kafka.common.security.plain.PlainLoginModule required user_alice="${PASSWORD}";`,
      'listener.name.secured.scram-sha-256.sasl.jaas.config':
        'org.apache.kafka.common.security.scram.ScramLoginModule required;',
      'listener.name.secured.scram-sha-512.sasl.jaas.config':
        'org.apache.kafka.common.security.scram.ScramLoginModule required;',
      'listener.name.secured.oauthbearer.sasl.jaas.config':
        'org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";',
    },
  });
  await server.start();
  await addScramUser('bob', 'SCRAM-SHA-256');
  await addScramUser('bob', 'SCRAM-SHA-512');
  await createTopic([server.address], topic, {});
  await produce([server.address], topic, ['seen']);
});

afterAll(async () => {
  await server?.kill();
  rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
});

async function makeCertificate(): Promise<string> {
  const keytool = java() === 'java' ? 'keytool' : join(dirname(java()), 'keytool');
  const store = [
    '-keystore',
    join(dir, 'keystore.p12'),
    '-storepass',
    PASSWORD,
    '-storetype',
    'PKCS12',
    '-alias',
    'broker',
  ];
  await run(keytool, [
    '-genkeypair',
    ...store,
    '-keyalg',
    'RSA',
    '-dname',
    'CN=localhost',
    '-ext',
    'SAN=dns:localhost',
    '-validity',
    '2',
  ]);
  const { stdout } = await run(keytool, ['-exportcert', '-rfc', ...store]);
  return stdout;
}

async function addScramUser(user: string, mechanism: string): Promise<void> {
  const lib = await jars('kafka');
  const add = `${mechanism}=[iterations=4096,password=${PASSWORD}]`;
  const args = [
    '--bootstrap-server',
    server.address,
    '--alter',
    '--add-config',
    add,
    '--entity-type',
    'users',
    '--entity-name',
    user,
  ];
  await run(java(), [
    '-XX:TieredStopAtLevel=1',
    '-Dorg.slf4j.simpleLogger.defaultLogLevel=error',
    '-cp',
    join(lib, '*'),
    'kafka.admin.ConfigCommand',
    ...args,
  ]);
}

/** What Kafka's own handler for tests accepts: a token that nobody signed. */
const oauthBearerProvider = async () => {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const now = Math.floor(Date.now() / 1000);
  return { value: `${part({ alg: 'none' })}.${part({ sub: 'carol', iat: now, exp: now + 600 })}.` };
};

const logins: readonly SaslOptions[] = [
  { mechanism: 'plain', username: 'alice', password: PASSWORD },
  { mechanism: 'scram-sha-256', username: 'bob', password: PASSWORD },
  { mechanism: 'scram-sha-512', username: 'bob', password: PASSWORD },
  { mechanism: 'oauthbearer', oauthBearerProvider },
];

function watch(options: Partial<KafkaSourceOptions>): Watch {
  const watching = new Watch({
    brokers: secured,
    topics: [topic],
    groupId: `group-${Math.random()}`,
    fromBeginning: true,
    ...options,
  });
  onTestFinished(() => watching.unsubscribe());
  return watching;
}

describe('TLS and logins', () => {
  test.each(logins)('records are read over TLS with $mechanism', async (sasl) => {
    expect((await checkKafka({ brokers: secured, topics: [topic], ssl: { ca }, sasl })).topics).toEqual([
      { topic, partitions: 1 },
    ]);
    const watching = watch({ ssl: { ca }, sasl });
    await watching.until(({ records }) => records.length === 1);
    expect(watching.values).toEqual(['seen']);
    watching.source.drain();
    await watching.until(({ isComplete }) => isComplete);
  });

  test('a wrong password is called a refused login, not an unreachable broker, and is not retried for ever', async () => {
    for (const right of logins.slice(0, 3)) {
      const sasl = { ...right, password: 'wrong' } as SaslOptions;
      await expect(checkKafka({ brokers: secured, topics: [topic], ssl: { ca }, sasl })).rejects.toMatchObject({
        code: 'KCR_PREFLIGHT',
        message: expect.stringMatching(
          new RegExp(`refused the login \\(${right.mechanism}, user (alice|bob)\\)`),
        ) as string,
      });
      await expect(watch({ ssl: { ca }, sasl }).until(() => false, 10_000)).rejects.toMatchObject({
        code: 'KCR_KAFKA',
        message: expect.stringContaining('check sasl.mechanism') as string,
      });
    }
    await expect(
      checkKafka({ brokers: secured, topics: [topic], ssl: { ca }, sasl: logins[0]! }).then(({ topics }) => topics),
    ).resolves.toHaveLength(1);
  });

  test('a certificate that is not trusted is called that, with what to do', async () => {
    const [sasl] = logins;
    await expect(checkKafka({ brokers: secured, topics: [topic], ssl: true, sasl })).rejects.toThrow(
      /certificate.*ssl\.ca/s,
    );
    await expect(watch({ ssl: true, sasl }).until(() => false, 10_000)).rejects.toThrow(/certificate.*ssl\.ca/s);
  });

  test('a listener that wants TLS, asked without, is told apart from a broker that is not there', async () => {
    await expect(checkKafka({ brokers: secured, topics: [topic] })).rejects.toMatchObject({
      code: 'KCR_KAFKA_UNREACHABLE',
      message: expect.stringContaining('a listener that wants TLS or a login') as string,
    });
  });
});
