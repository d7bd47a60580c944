import { expect, test } from 'vitest';
import type { NIC } from '../../api/types';
import { cardChange } from './Cards';

const nic: NIC = {
  mac: '02:00:00:00:00:01',
  model: 'virtio',
  network: 'n',
  network_name: 'lan',
  connected: true,
};

test('a new card, and the same on the command line', () => {
  expect(
    cardChange('web', {
      network: 'lan',
      model: 'e1000',
      mac: ' 02:00:00:00:00:AB',
      connected: false,
    }),
  ).toEqual({
    part: {
      add_nics: [{ network: 'lan', model: 'e1000', mac: '02:00:00:00:00:ab', disconnected: true }],
    },
    line: 'drystone vm edit web --add-nic net=lan,model=e1000,mac=02:00:00:00:00:ab,disconnected',
  });
});

test('only what differs of a card is changed', () => {
  const same = { network: 'lan', model: 'virtio', mac: '', connected: true } as const;
  expect(cardChange('web', same, nic).part).toBeUndefined();
  expect(cardChange('web', { ...same, network: 'out', connected: false }, nic)).toEqual({
    part: { set_nics: [{ mac: nic.mac, network: 'out', connected: false }] },
    line: 'drystone vm edit web --set-nic mac=02:00:00:00:00:01,net=out,disconnected',
  });
});
