// A broker that asks for rights: what this program needs of them, and what is said of one that is missing.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AclOperationTypes, AclPermissionTypes, AclResourceTypes, type Admin, ResourcePatternTypes } from 'kafkajs';
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import { checkKafkaStore } from '../../src/state/kafka.js';
import { withAdmin } from '../../src/kafka/admin.js';
import { groupNow } from '../../src/kafka/group-admin.js';
import { clientSettings } from '../../src/kafka/options.js';
import { checkKafka, lagOf } from '../../src/kafka/preflight.js';
import type { KafkaSourceOptions } from '../../src/kafka/source.js';
import { createTopic, kafkaClient } from '../stack/clients.js';
import { kafkaServer } from '../stack/kafka.js';
import { freePort, type ServerProcess } from '../stack/process.js';
import { send as produce } from './send.js';
import { Watch } from './watch.js';

const PASSWORD = 'only-for-tests';
const USERS = ['whole', 'topicless', 'unreading', 'groupless', 'losing', 'leaving'] as const;
type User = (typeof USERS)[number];
const topic = 'guarded';

let server: ServerProcess;
let admin: Admin;
let guarded: string[];
const dir = mkdtempSync(join(tmpdir(), 'kafka-rights-'));

beforeAll(async () => {
  const port = await freePort();
  guarded = [`127.0.0.1:${port}`];
  const users = [...USERS].map((user) => `user_${user}="${PASSWORD}"`).join(' ');
  server = await kafkaServer(dir, {
    listeners: [`GUARDED://127.0.0.1:${port}`],
    properties: {
      'authorizer.class.name': 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
      'super.users': 'User:ANONYMOUS',
      'listener.security.protocol.map': 'CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,GUARDED:SASL_PLAINTEXT',
      'listener.name.guarded.sasl.enabled.mechanisms': 'PLAIN',
      'listener.name.guarded.plain.sasl.jaas.config': `org.apache.kafka.common.security.plain.PlainLoginModule required ${users};`,
    },
  });
  await server.start();
  admin = kafkaClient([server.address]).admin();
  await admin.connect();
  await createTopic([server.address], topic, {});
  await produce([server.address], topic, ['seen']);
  // On a loaded machine the coordinator of a cluster's first group takes longer than one question waits.
  await vi.waitFor(() => groupNow({ brokers: [server.address], groupId: 'first', topics: [topic] }), {
    timeout: 90_000,
    interval: 500,
  });
});

afterAll(async () => {
  await admin?.disconnect();
  await server?.kill();
  rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
});

const { TOPIC, GROUP } = AclResourceTypes;
const { READ, DESCRIBE } = AclOperationTypes;

/** What a user may do with the topic, and with every group. */
function rightsOf(user: User, resourceType: AclResourceTypes, operation: AclOperationTypes) {
  return {
    resourceType,
    operation,
    principal: `User:${user}`,
    resourceName: resourceType === TOPIC ? topic : '*',
    host: '*',
    resourcePatternType: ResourcePatternTypes.LITERAL,
    permissionType: AclPermissionTypes.ALLOW,
  };
}

const grant = (...rights: ReturnType<typeof rightsOf>[]) => admin.createAcls({ acl: rights });
const take = async (right: ReturnType<typeof rightsOf>) => void (await admin.deleteAcls({ filters: [right] }));

function optionsOf(username: User) {
  return {
    brokers: guarded,
    topics: [topic],
    groupId: `of-${username}`,
    sasl: { mechanism: 'plain', username, password: PASSWORD } as const,
  };
}

function watch(user: User, options: Partial<KafkaSourceOptions> = {}): Watch {
  const watching = new Watch({ ...optionsOf(user), fromBeginning: true, ...options });
  onTestFinished(() => watching.unsubscribe());
  return watching;
}

describe('rights of a Kafka user', () => {
  test('READ on the topics and on the group is all that is needed: to check, to read, to commit, to tell the lag, to keep states in the group', async () => {
    await grant(rightsOf('whole', TOPIC, READ), rightsOf('whole', GROUP, READ));
    const options = optionsOf('whole');
    await expect(checkKafka(options)).resolves.toMatchObject({ topics: [{ topic, partitions: 1 }] });
    await expect(groupNow(options)).resolves.toMatchObject({ members: [], partitions: [{ committed: undefined }] });
    await expect(
      withAdmin(clientSettings(options), 'The check of the store', (admin) =>
        checkKafkaStore(admin, { group: options.groupId, topics: [topic] }),
      ),
    ).resolves.toEqual({ partitions: 1, kept: 0, metadataMaxBytes: undefined, retentionMinutes: undefined });
    const watching = watch('whole');
    await watching.until(({ records }) => records.length === 1);
    await watching.commit(watching.owned[0]!, 1);
    await expect(lagOf(options)).resolves.toMatchObject([{ committed: 1, lag: 0 }]);
    await expect(groupNow(options)).resolves.toMatchObject({
      members: [expect.any(String)],
      partitions: [{ committed: 1 }],
    });
    watching.source.drain();
    await watching.until(({ isComplete }) => isComplete);
  });

  test('a topic that may not be described is not called missing', async () => {
    await grant(rightsOf('topicless', GROUP, READ));
    const refused = {
      code: 'KCR_KAFKA',
      message: expect.stringMatching(
        /TOPIC_AUTHORIZATION_FAILED.*guarded.*grant READ and DESCRIBE on the topics/s,
      ) as string,
    };
    await expect(checkKafka(optionsOf('topicless'))).rejects.toMatchObject(refused);
    await expect(groupNow(optionsOf('topicless'))).rejects.toMatchObject(refused);
    await expect(watch('topicless').until(() => false, 20_000)).rejects.toMatchObject(refused);
  });

  test('a topic that may be described and not read stops the source with the topic and the right that is missing', async () => {
    await grant(rightsOf('unreading', GROUP, READ), rightsOf('unreading', TOPIC, DESCRIBE));
    await expect(watch('unreading').until(() => false, 20_000)).rejects.toMatchObject({
      code: 'KCR_KAFKA',
      message: expect.stringMatching(/guarded.*grant READ/s) as string,
    });
  });

  test('a group that may not be used stops the source with the group and the right that is missing', async () => {
    await grant(rightsOf('groupless', TOPIC, READ));
    const refused = {
      code: 'KCR_KAFKA',
      message: expect.stringMatching(/of-groupless.*grant READ on the consumer group/s) as string,
    };
    await expect(groupNow(optionsOf('groupless'))).rejects.toMatchObject(refused);
    await expect(watch('groupless').until(() => false, 20_000)).rejects.toMatchObject(refused);
  });

  test('the right to read, taken away while records are read, halts the partition with its name: nothing is waited for in silence', async () => {
    const right = rightsOf('losing', TOPIC, READ);
    await grant(right, rightsOf('losing', GROUP, READ));
    const watching = watch('losing');
    await watching.until(({ records }) => records.length === 1);
    await take(right);
    await watching.until((self) => self.of('failed').length === 1, 20_000);
    expect(watching.of('failed')[0]?.error).toMatchObject({
      code: 'KCR_KAFKA',
      message: expect.stringMatching(/topic guarded, partition 0.*grant READ/s) as string,
    });
  });

  test('the right to the group, taken away while records are read, is said at once', async () => {
    const right = rightsOf('leaving', GROUP, READ);
    await grant(right, rightsOf('leaving', TOPIC, READ));
    const watching = watch('leaving');
    await watching.until(({ records }) => records.length === 1);
    await take(right);
    await expect(watching.until(() => false, 20_000)).rejects.toMatchObject({
      code: 'KCR_KAFKA',
      message: expect.stringMatching(/of-leaving.*grant READ on the consumer group/s) as string,
    });
  });
});
