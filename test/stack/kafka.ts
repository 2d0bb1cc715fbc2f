// Kafka brokers as processes: KRaft, one node that is broker and controller, or several.
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
  /** Further ones, `NAME://host:port`; where `properties` do not say what is advertised, they are. */
  readonly listeners?: readonly string[];
  /** @default 512 */
  readonly heapMb?: number;
}

const JVM_OPTIONS = [
  '-XX:+UseSerialGC',
  '-XX:TieredStopAtLevel=1',
  '-Xshare:auto',
  '-Dorg.slf4j.simpleLogger.defaultLogLevel=warn',
  '-Dorg.slf4j.simpleLogger.showDateTime=true',
];

/** Writes the configuration, formats the data directory and chooses the ports; the caller starts it. */
export async function kafkaServer(dir: string, options: KafkaOptions = {}): Promise<ServerProcess> {
  const [port, controllerPort] = [await freePort(), await freePort()];
  return kafkaNode(dir, brokerProperties(port, controllerPort, join(dir, 'data')), kafkaUuid(), options);
}

/** Three nodes that keep every record three times: one of them may fail. The caller starts them, at once: they wait for each other. */
export async function kafkaCluster(dir: string, options: KafkaOptions = {}): Promise<readonly ServerProcess[]> {
  const nodes = [await placeOf(dir, 1), await placeOf(dir, 2), await placeOf(dir, 3)];
  const voters = nodes.map(({ voter }) => voter).join(',');
  const clusterId = kafkaUuid();
  return Promise.all(
    nodes.map(({ own, properties }) =>
      kafkaNode(own, { ...properties, ...REPLICATED, 'controller.quorum.voters': voters }, clusterId, options),
    ),
  );
}

/** Two brokers, of which the first is the only controller and is started first: the second may go away. */
export async function kafkaPair(dir: string): Promise<readonly [ServerProcess, ServerProcess]> {
  const [one, two] = [await placeOf(dir, 1), await placeOf(dir, 2)];
  const clusterId = kafkaUuid();
  const broker = {
    'process.roles': 'broker',
    'controller.quorum.voters': one.voter,
    listeners: two.properties['advertised.listeners'],
  };
  return [
    await kafkaNode(one.own, one.properties, clusterId, {}),
    await kafkaNode(two.own, { ...two.properties, ...broker }, clusterId, {}),
  ];
}

/** Where one of several nodes is to be, and as which it votes. */
async function placeOf(dir: string, id: number) {
  const [own, port, controllerPort] = [join(dir, `${id}`), await freePort(), await freePort()];
  const properties = { ...brokerProperties(port, controllerPort, join(own, 'data')), 'node.id': `${id}` };
  return { own, voter: `${id}@127.0.0.1:${controllerPort}`, properties };
}

async function kafkaNode(
  dir: string,
  own: BrokerProperties,
  clusterId: string,
  options: KafkaOptions,
): Promise<ServerProcess> {
  const lib = await jars('kafka');
  const dataDir = own['log.dirs'];
  const configFile = join(dir, 'server.properties');
  const further = options.listeners ?? [];
  const advertised = own['advertised.listeners'];
  const address = advertised.replace('PLAINTEXT://', '');
  const listeners = {
    listeners: [own.listeners, ...further].join(','),
    'advertised.listeners': [advertised, ...further].join(','),
  };
  mkdirSync(dataDir, { recursive: true });
  writeProperties(configFile, { ...own, ...listeners, ...options.properties });
  format(await formattedOnce(lib), dataDir, clusterId, own['node.id']);
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

type BrokerProperties = ReturnType<typeof brokerProperties>;

function brokerProperties(port: number, controllerPort: number, dataDir: string) {
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
    const args = [
      ...JVM_OPTIONS,
      '-cp',
      join(lib, '*'),
      'kafka.tools.StorageTool',
      'format',
      '-t',
      kafkaUuid(),
      '-c',
      configFile,
    ];
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
  writeFileSync(
    file,
    Object.entries(properties)
      .map(([key, value]) => `${key}=${value}\n`)
      .join(''),
  );
}

async function describesItself(broker: string): Promise<void> {
  const admin = kafkaClient([broker], {
    connectionTimeout: 5000,
    requestTimeout: 10_000,
    retry: { retries: 0 },
  }).admin();
  try {
    await admin.connect();
    const { brokers, controller } = await admin.describeCluster();
    if (brokers.length === 0 || controller === null) throw new Error('Kafka knows no broker yet');
  } finally {
    await admin.disconnect();
  }
}
