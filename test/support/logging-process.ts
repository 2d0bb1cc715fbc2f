// A process that logs more than any pipe holds, beats on its standard output meanwhile, and ends on SIGTERM with 42:
// `node --import tsx test/support/logging-process.ts`.
import { writeSync } from 'node:fs';
import { Log } from '../../src/cli/log/log.js';

const log = new Log({ level: 'info', maxBytes: 262_144 });
const text = 'x'.repeat(200);
let i = 0;
setInterval(() => {
  for (let n = 0; n < 500; n++) log.info({ i: i++, text }, 'line');
  writeSync(1, 'beat\n');
}, 10);
process.on('SIGTERM', () => void log.close(500).then(() => process.exit(42)));
