import { defineConfig } from 'vitest/config';
import { isRoom, rooms } from './verification/mutation/rooms.js';
import { alias } from './vitest.config.js';

const room = process.env.MUTATION_ROOM ?? '';
if (!isRoom(room)) throw new Error('npm run mutate sets MUTATION_ROOM');

/** For Stryker, which takes one project: the tests of one room that need no server. */
export default defineConfig({
  resolve: { alias },
  test: {
    include: [...rooms[room].tests],
    exclude: ['**/*.servers.test.ts', '**/*.long.test.ts', 'test/stack/**'],
    // As in the project `unit`: most of a mutant's time is the loading of what its tests share.
    isolate: false,
    maxWorkers: 1,
    testTimeout: 30_000,
  },
});
