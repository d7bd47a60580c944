import { useTranslation } from 'react-i18next';
import type { PoolSize } from '../api/types';
import { useFormat } from '../i18n/format';
import { Meter } from '../ui/Meter';
import classes from './pool.module.css';

const USED = 'var(--mantine-primary-color-filled)';
const RESERVE =
  'repeating-linear-gradient(135deg, var(--d-reserve) 0 5px, transparent 5px 9px), var(--d-sunken)';

/** Used, free, and what must stay free so that a lost node can be rebuilt. */
export function PoolBar({ pool, brief = false }: { pool: PoolSize; brief?: boolean }) {
  const { t } = useTranslation();
  const format = useFormat();
  const { size_bytes: size, used_bytes: used, reserve_bytes: reserve } = pool;
  if (size <= 0) return <p className={classes.none}>{t('pool.empty')}</p>;
  const free = Math.max(0, size - used - reserve);
  const over = Math.max(0, used + reserve - size);
  const parts = [
    { label: t('pool.used'), share: used / size, color: USED },
    { label: t('pool.free'), share: free / size, color: 'transparent' },
    { label: t('pool.reserve'), share: (reserve - over) / size, color: RESERVE },
  ];
  return (
    <div className={classes.pool}>
      <Meter parts={parts} height={brief ? 8 : 18} />
      <ul className={classes.legend}>
        <li>
          <i style={{ background: USED }} />
          {t('pool.used')} <b>{format.bytes(used)}</b>
          {!brief && <span>{format.percent(used / size)}</span>}
        </li>
        <li>
          <i className={classes.hollow} />
          {t('pool.free')} <b>{format.bytes(free)}</b>
        </li>
        {!brief && (
          <li>
            <i style={{ background: RESERVE }} />
            {t('pool.reserve')} <b>{format.bytes(reserve)}</b>
          </li>
        )}
      </ul>
      {over > 0 && <p className={classes.over}>{t('pool.over', { size: format.bytes(over) })}</p>}
    </div>
  );
}
