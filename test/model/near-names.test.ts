// A topic that is misspelt is named as it is spelt in the cluster.
import { expect, test } from 'vitest';
import { nearNames } from '../../src/model/near-names.js';

test.each([
  ['flihgts', ['clicks', 'flights'], ['flights']],
  ['fligths-eu', ['flights-eu', 'clicks-eu'], ['flights-eu']],
  ['Flights', ['flights', 'flight'], ['flights', 'flight']],
  ['ab', ['ac', 'AB'], ['AB']],
  ['orders', [], []],
  ['orders-1', ['orders-5', 'orders-4', 'orders-3', 'orders-2'], ['orders-2', 'orders-3', 'orders-4']],
])('who wrote %s may have meant, of %j, %j', (wanted, existing, near) => {
  expect(nearNames(wanted, existing)).toEqual(near);
});
