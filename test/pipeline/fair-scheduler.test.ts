// Timers that fall due together: no more of them in one turn than its time allows.
import { VirtualTimeScheduler, timer } from 'rxjs';
import { expect, test } from 'vitest';
import { fairScheduler } from '../../src/pipeline/fair-scheduler.js';

/** Turns and the clock are the test's. */
function fair() {
  const timers = new VirtualTimeScheduler();
  const turns: (() => void)[] = [];
  let nowMs = 0;
  const scheduler = fairScheduler({ timers, nextTurn: (go) => turns.push(go), nowMs: () => nowMs });
  return { scheduler, timers, turns, pass: (ms: number) => (nowMs += ms), turn: () => turns.shift()?.() };
}

test('J1: thousands of timers that fall due together leave turns to heartbeats in between, and come in their order', () => {
  const { scheduler, timers, turns, pass, turn } = fair();
  const done: number[] = [];
  for (let i = 0; i < 100; i++) {
    timer(5, scheduler).subscribe(() => {
      done.push(i);
      pass(1);
    });
  }
  timers.flush();
  expect(done).toEqual([]);
  for (let turnsTaken = 1; turns.length > 0; turnsTaken++) {
    turn();
    expect(done).toHaveLength(Math.min(100, turnsTaken * 10));
    expect(turns.length).toBeLessThanOrEqual(1);
  }
  expect(done).toEqual(Array.from({ length: 100 }, (_, i) => i));
});

test('one that is called off while it waits for its turn does nothing any more', () => {
  const { scheduler, timers, turn } = fair();
  const done: string[] = [];
  const off = scheduler.schedule(() => void done.push('off'), 5);
  timer(5, scheduler).subscribe(() => done.push('on'));
  timers.flush();
  off.unsubscribe();
  turn();
  expect(done).toEqual(['on']);
});

test('one that throws does not take the others with it', () => {
  const { scheduler, timers, turns, turn } = fair();
  const done: string[] = [];
  scheduler.schedule(() => {
    throw new Error('a defect');
  }, 5);
  scheduler.schedule(() => void done.push('on'), 5);
  timers.flush();
  expect(turn).toThrow('a defect');
  expect(turns).toHaveLength(1);
  turn();
  expect(done).toEqual(['on']);
});

test('an interval goes on, and its clock is that of the timers', () => {
  const { scheduler, timers, turns } = fair();
  const at: number[] = [];
  const ticking = timer(5, 10, scheduler).subscribe(() => {
    at.push(scheduler.now());
    if (at.length === 3) ticking.unsubscribe();
  });
  for (let i = 0; i < 5; i++) {
    timers.flush();
    turns.shift()?.();
  }
  expect(at).toEqual([5, 15, 25]);
});

test('J1: what costs no time by the clock comes a few at a time too: what it sets off in promises runs in the same turn', () => {
  const { scheduler, timers, turns, turn } = fair();
  let done = 0;
  for (let i = 0; i < 100; i++) timer(5, scheduler).subscribe(() => void done++);
  timers.flush();
  turn();
  expect(done).toBe(32);
  while (turns.length > 0) turn();
  expect(done).toBe(100);
});
