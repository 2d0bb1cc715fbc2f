// Kafka brokers as processes: KRaft, one node that is broker and controller, or three of them.
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { kafkaClient } from './clients.js';
import { jars, java, makeOnce } from './jars.js';
import { freePort, ServerProcess } from './process.js';

export interface KafkaOptions {
  /** Broker properties, over the ones below. */
  readonly properties?: Readonly<Record<string, string>>;
  /** @default 512 */
  readonly heapMb?: number;
}

const JVM_OPTIONS = [
  '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-Xshare:auto',
  '-Dorg.slf4j.simpleLogger.defaultLogLevel=warn', '-Dorg.slf4j.simpleLogger.showDateTime=true',
];

/** Writes the configuration, formats the data directory and chooses the ports; the caller starts it. */
export async function kafkaServer(dir: string, options: KafkaOptions = {}): Promise<ServerProcess> {
  const [port, controllerPort] = [await freePort(), await freePort()];
  return kafkaNode(dir, brokerProperties(port, controllerPort, join(dir, 'data')), kafkaUuid(), options);
}

/** Three nodes that keep every record three times: one of them may fail. The caller starts them, at once: they wait for each other. */
export async function kafkaCluster(dir: string, options: KafkaOptions = {}): Promise<readonly ServerProcess[]> {
  const nodes: { id: number; port: number; controllerPort: number }[] = [];
  for (const id of [1, 2, 3]) nodes.push({ id, port: await freePort(), controllerPort: await freePort() });
  const voters = nodes.map(({ id, controllerPort }) => `${id}@127.0.0.1:${controllerPort}`).join(',');
  const clusterId = kafkaUuid();
  return Promise.all(nodes.map(({ id, port, controllerPort }) => {
    const own = join(dir, `${id}`);
    const properties = { ...brokerProperties(port, controllerPort, join(own, 'data')), ...REPLICATED, 'node.id': `${id}`, 'controller.quorum.voters': voters };
    return kafkaNode(own, properties, clusterId, options);
  }));
}

async function kafkaNode(dir: string, own: Readonly<Record<string, string>>, clusterId: string, options: KafkaOptions): Promise<ServerProcess> {
  const lib = await jars('kafka');
  const properties: Readonly<Record<string, string>> = { ...own, ...options.properties };
  const dataDir = properties['log.dirs']!;
  const configFile = join(dir, 'server.properties');
  const address = properties['listeners']!.replace(/^PLAINTEXT:\/\/([^,]*),.*$/, '$1');
  mkdirSync(dataDir, { recursive: true });
  writeProperties(configFile, properties);
  format(await formattedOnce(lib), dataDir, clusterId, properties['node.id']!);
  const heap = `-Xmx${options.heapMb ?? 512}m`;
  return new ServerProcess({
    name: 'Kafka',
    address,
    dataDir,
    logFile: join(dir, 'kafka.log'),
    command: [java(), '-Xms128m', heap, ...JVM_OPTIONS, '-cp', join(lib, '*'), 'kafka.Kafka', configFile],
    ready: () => describesItself(address),
  });
}

function brokerProperties(port: number, controllerPort: number, dataDir: string): Record<string, string> {
  return {
    'process.roles': 'broker,controller',
    'node.id': '1',
    'controller.quorum.voters': `1@127.0.0.1:${controllerPort}`,
    listeners: `PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controllerPort}`,
    'advertised.listeners': `PLAINTEXT://127.0.0.1:${port}`,
    'controller.listener.names': 'CONTROLLER',
    'inter.broker.listener.name': 'PLAINTEXT',
    'listener.security.protocol.map': 'CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT',
    'log.dirs': dataDir,
    'auto.create.topics.enable': 'false',
    // One replica, and one partition instead of fifty for each internal topic: a first join is ten times quicker.
    'offsets.topic.replication.factor': '1',
    'offsets.topic.num.partitions': '1',
    'transaction.state.log.replication.factor': '1',
    'transaction.state.log.min.isr': '1',
    'transaction.state.log.num.partitions': '1',
    'share.coordinator.state.topic.replication.factor': '1',
    'share.coordinator.state.topic.min.isr': '1',
    'share.coordinator.state.topic.num.partitions': '1',
    'group.initial.rebalance.delay.ms': '0',
    'group.min.session.timeout.ms': '1000',
    // After a SIGKILL the controller lets the broker in again only when its former session is over.
    'broker.session.timeout.ms': '3000',
    'broker.heartbeat.interval.ms': '500',
  };
}

const REPLICATED = {
  'default.replication.factor': '3',
  'min.insync.replicas': '2',
  'offsets.topic.replication.factor': '3',
  'transaction.state.log.replication.factor': '3',
  'transaction.state.log.min.isr': '2',
  // A broker that is back leads its partitions again after some seconds, not minutes.
  'leader.imbalance.check.interval.seconds': '5',
};

/** A formatted data directory, made once for each version of the jars: formatting takes a Java start of its own. */
function formattedOnce(lib: string): Promise<string> {
  return makeOnce(`${basename(lib)}-formatted`, async (dir) => {
    const configFile = join(dir, 'server.properties');
    const dataDir = join(dir, 'data');
    writeProperties(configFile, brokerProperties(9092, 9093, dataDir));
    const args = [...JVM_OPTIONS, '-cp', join(lib, '*'), 'kafka.tools.StorageTool', 'format', '-t', kafkaUuid(), '-c', configFile];
    await promisify(execFile)(java(), args);
  });
}

/** What `StorageTool format` does, on a new directory: the formatted one, under other ids. */
function format(formatted: string, dataDir: string, clusterId: string, nodeId: string): void {
  if (existsSync(join(dataDir, 'meta.properties'))) return;
  cpSync(join(formatted, 'data'), dataDir, { recursive: true });
  const file = join(dataDir, 'meta.properties');
  const meta = readFileSync(file, 'utf8')
    .replace(/^cluster\.id=.*$/m, `cluster.id=${clusterId}`)
    .replace(/^node\.id=.*$/m, `node.id=${nodeId}`)
    .replace(/^directory\.id=.*$/m, `directory.id=${kafkaUuid()}`);
  writeFileSync(file, meta);
}

function kafkaUuid(): string {
  // Kafka refuses ids that begin with a dash.
  return randomBytes(16).toString('base64url').replace(/^-/, 'A');
}

function writeProperties(file: string, properties: Readonly<Record<string, string>>): void {
  writeFileSync(file, Object.entries(properties).map(([key, value]) => `${key}=${value}\n`).join(''));
}

async function describesItself(broker: string): Promise<void> {
  const admin = kafkaClient([broker], { connectionTimeout: 5000, requestTimeout: 10_000, retry: { retries: 0 } }).admin();
  try {
    await admin.connect();
    const { brokers, controller } = await admin.describeCluster();
    if (brokers.length === 0 || controller === null) throw new Error('Kafka knows no broker yet');
  } finally {
    await admin.disconnect();
  }
}
