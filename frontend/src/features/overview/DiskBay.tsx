import { Tooltip } from '@mantine/core';
import { useTranslation } from 'react-i18next';
import type { Disk } from '../../api/types';
import { useFormat } from '../../i18n/format';
import { LiveNumber } from '../../parts/charts';
import { DiskMark } from '../../parts/states';
import { Meter } from '../../ui/Meter';
import classes from './overview.module.css';

/** One disk of a node: how well, how full and how busy it is. */
export function DiskBay({ disk }: { disk: Disk }) {
  const { t } = useTranslation();
  const format = useFormat();
  const share = disk.size_bytes > 0 ? disk.used_bytes / disk.size_bytes : 0;
  const name = disk.path.split('/').at(-1) ?? disk.id;
  const tip = [disk.path, disk.error, disk.checksum_errors > 0 && errors()]
    .filter((x): x is string => typeof x === 'string' && x !== '')
    .join(' · ');
  function errors(): string {
    return t('disk.errors', { count: disk.checksum_errors, repaired: disk.repaired });
  }
  return (
    <Tooltip label={tip} withArrow multiline maw={360} openDelay={300}>
      <div className={classes.bay} data-state={disk.state} data-disk={disk.id}>
        <div className={classes.bayHead}>
          <span className={classes.bayName}>{name}</span>
          <DiskMark state={disk.state} />
        </div>
        <Meter
          height={6}
          parts={[{ label: t('pool.used'), share, color: 'var(--mantine-primary-color-filled)' }]}
        />
        <div className={classes.bayFoot}>
          <span>
            {format.bytes(disk.used_bytes)} / {format.bytes(disk.size_bytes)}
          </span>
          <LiveNumber
            topic="disks"
            read={(m) => m.sum('disks', disk.id, ['r_iops', 'w_iops'])}
            write={format.iops}
            name="disk.iops"
          />
        </div>
        {disk.checksum_errors > 0 && <div className={classes.bayErrors}>{errors()}</div>}
      </div>
    </Tooltip>
  );
}
