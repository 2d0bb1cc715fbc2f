// What keeper.servers.test.ts runs as a process of its own: uses a store, closes it, and must then end by itself.
// Arguments: the address to connect to, and `idle`, `busy` or `opening`, the moment at which it closes.
import { from, lastValueFrom } from 'rxjs';
import { emptyState } from '../../src/model/state.js';
import { keeperStore } from '../../src/state/keeper.js';

const [connect = '', moment = ''] = process.argv.slice(2);
const store = keeperStore({ connect, path: '/close-and-exit', sessionTimeoutMs: 600_000, operationTimeoutMs: 600_000 });
const key = { cluster: 'cluster', group: 'group', topic: 'topic', partition: process.pid };
const tell = (outcome: Promise<unknown>) =>
  outcome.then(
    () => console.log('done'),
    (error: Error) => console.log(error.message),
  );

const claiming = lastValueFrom(from(store.claim(key, 'owner')));
if (moment === 'opening') {
  void tell(claiming);
} else {
  const claim = await claiming;
  const writing = tell(lastValueFrom(from(store.write(claim, emptyState))));
  if (moment === 'idle') await writing;
}
await lastValueFrom(from(store.close()));
console.log('closed');
