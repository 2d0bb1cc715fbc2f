// How many bytes a second the broker lets consumers fetch: set by Kafka's own tool.
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { jars, java } from '../stack/jars.js';

/** `clientId` undefined: of all that have no quota of their own. `bytesPerSecond` undefined: as much as they can. */
export async function limitFetches(
  brokers: readonly string[],
  clientId: string | undefined,
  bytesPerSecond: number | undefined,
): Promise<void> {
  const change =
    bytesPerSecond === undefined
      ? ['--delete-config', 'consumer_byte_rate']
      : ['--add-config', `consumer_byte_rate=${bytesPerSecond}`];
  const whose = clientId === undefined ? ['--entity-default'] : ['--entity-name', clientId];
  await promisify(execFile)(java(), [
    '-Xmx128m',
    '-Dorg.slf4j.simpleLogger.defaultLogLevel=error',
    '-cp',
    join(await jars('kafka'), '*'),
    'kafka.admin.ConfigCommand',
    '--bootstrap-server',
    brokers.join(','),
    '--alter',
    ...change,
    '--entity-type',
    'clients',
    ...whose,
  ]);
}
