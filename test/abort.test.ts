import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { limitOf } from '../src/abort.js';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const late = () => new Error('late');

test('a limit aborts when its time is over, and says why', () => {
  const { signal } = limitOf(30_000, late);
  vi.advanceTimersByTime(29_999);
  expect(signal.aborted).toBe(false);
  vi.advanceTimersByTime(1);
  expect(signal.reason).toEqual(late());
});

test('a limit aborts when whoever waits calls it off, with his reason', () => {
  const stopping = new AbortController();
  const { signal } = limitOf(30_000, late, stopping.signal);
  stopping.abort(new Error('SIGTERM'));
  expect(signal.reason).toEqual(new Error('SIGTERM'));
});

test('a limit that was cleared aborts nothing, and holds no process up', () => {
  const { signal, clear } = limitOf(30_000, late);
  clear();
  expect(vi.getTimerCount()).toBe(0);
  vi.advanceTimersByTime(60_000);
  expect(signal.aborted).toBe(false);
});
