import type { TFunction } from 'i18next';
import type { VM } from '../../api/types';
import type { Format } from '../../i18n/format';

/** What each disk of a machine may do at most, as one line, or none. */
export function limitsOf(limits: VM['limits'], format: Format, t: TFunction): string[] {
  const { iops, bytes_per_second: bytes, burst_seconds: burst } = limits;
  const each = [
    ...(iops > 0 ? [format.iops(iops)] : []),
    ...(bytes > 0 ? [format.rate(bytes)] : []),
  ];
  if (each.length === 0) return [];
  if (burst > 0) each.push(t('vm.limit.bursts', { time: format.duration(burst) }));
  return [each.join(', ')];
}
