import { expect, test } from 'vitest';
import type { Network } from '../../api/types';
import { bridgeGood, changeOf, lineOf } from './draft';

const lan: Network = {
  id: 'n',
  name: 'lan',
  kind: 'bridge',
  bridge: 'br0',
  nodes: [{ node: 'x', node_name: 'flint', bridge: 'br7' }],
  vlan: 20,
  cards: 1,
  created: '2026-01-01T00:00:00Z',
};
const same = {
  name: 'lan',
  kind: 'bridge',
  bridge: 'br0',
  vlan: 20,
  nodes: [{ node: 'flint', bridge: 'br7' }],
} as const;

test('only what differs is changed', () => {
  expect(changeOf(lan, { ...same, nodes: [...same.nodes] })).toEqual({});
  const { bridge, name } = same;
  expect(changeOf(lan, { name, kind: 'bridge', bridge })).toEqual({ vlan: 0, nodes: [] });
});

test('the line does the same', () => {
  const spec = { ...same, nodes: [...same.nodes] };
  expect(lineOf(spec)).toBe('drystone network create lan --bridge br0 --node flint=br7 --vlan 20');
  expect(lineOf({ name: 'out', kind: 'user' })).toBe('drystone network create out --user');
  expect(lineOf(spec, lan, { bridge: 'br1' })).toBe('drystone network edit lan --bridge br1');
});

test('a bridge is named as Linux allows', () => {
  expect(['br0', 'br0.20', 'a234567890123456', '../x', ''].map(bridgeGood)).toEqual([
    true,
    true,
    false,
    false,
    false,
  ]);
});
