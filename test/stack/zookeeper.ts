// A standalone ZooKeeper server as a process, for state kept in Keeper and for KeeperMap tables.
import { mkdirSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { jars, java } from './jars.js';
import { freePort, ServerProcess } from './process.js';

export interface ZookeeperOptions {
  /** Lines of zoo.cfg, over the ones below. */
  readonly config?: Readonly<Record<string, string>>;
}

/** Writes the configuration and chooses the port; the caller starts it. */
export async function zookeeperServer(dir: string, options: ZookeeperOptions = {}): Promise<ServerProcess> {
  const lib = await jars('zookeeper');
  const port = await freePort();
  const dataDir = join(dir, 'data');
  const configFile = join(dir, 'zoo.cfg');
  const config: Record<string, string> = {
    dataDir,
    clientPort: String(port),
    clientPortAddress: '127.0.0.1',
    // Sessions are timed in ticks; a short one makes short session timeouts exact.
    tickTime: '250',
    minSessionTimeout: '1000',
    maxSessionTimeout: '60000',
    maxClientCnxns: '0',
    'admin.enableServer': 'false',
    '4lw.commands.whitelist': 'ruok,srvr,stat,cons,mntr,dump',
    ...options.config,
  };
  mkdirSync(dataDir, { recursive: true });
  writeFileSync(
    configFile,
    Object.entries(config)
      .map(([key, value]) => `${key}=${value}\n`)
      .join(''),
  );
  return new ServerProcess({
    name: 'ZooKeeper',
    address: `127.0.0.1:${port}`,
    dataDir,
    logFile: join(dir, 'zookeeper.log'),
    command: [
      java(),
      '-Xms32m',
      '-Xmx128m',
      '-XX:+UseSerialGC',
      '-XX:TieredStopAtLevel=1',
      '-Xshare:auto',
      '-Dorg.slf4j.simpleLogger.defaultLogLevel=warn',
      '-Dorg.slf4j.simpleLogger.showDateTime=true',
      // A killed process loses nothing of the page cache, so waiting for the disk would only cost time.
      '-Dzookeeper.forceSync=no',
      '-Dzookeeper.preAllocSize=1024',
      '-cp',
      join(lib, '*'),
      'org.apache.zookeeper.server.ZooKeeperServerMain',
      configFile,
    ],
    ready: async () => {
      const answer = await fourLetterWord(port, 'srvr');
      if (!answer.includes('Mode: standalone')) throw new Error(`ZooKeeper answers: ${answer.trim()}`);
    },
  });
}

function fourLetterWord(port: number, word: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = '';
    const socket = connect(port, '127.0.0.1', () => socket.write(word));
    socket.setEncoding('utf8').setTimeout(5000, () => socket.destroy(new Error('no answer from ZooKeeper')));
    socket.on('data', (text: string) => (answer += text));
    socket.on('error', reject);
    socket.on('close', () => resolve(answer));
  });
}
