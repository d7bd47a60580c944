import { Progress } from '@mantine/core';
import { useEffect, useState } from 'react';
import { useTranslation } from 'react-i18next';
import type { Volume } from '../api/types';
import { useFormat } from '../i18n/format';
import classes from './pool.module.css';
import { secondsLeft } from './secondsLeft';
import type { Reading } from './secondsLeft';

/** What is being filled again, how far it is, and how long it will take. */
export function Repairs({ volumes }: { volumes: Volume[] }) {
  const { t } = useTranslation();
  const filling = volumes.filter((v) => v.fill !== undefined);
  const waiting = volumes.filter((v) => v.fill === undefined && v.columns_out_of_sync > 0).length;
  if (filling.length === 0 && waiting === 0) return null;
  return (
    <div className={classes.repairs}>
      <h3>{t('repair.title')}</h3>
      {filling.map((v) => (
        <Repair
          key={v.id}
          name={v.name}
          done={v.fill?.done_bytes ?? 0}
          total={v.fill?.total_bytes ?? 0}
        />
      ))}
      {waiting > 0 && <p className={classes.none}>{t('repair.waiting', { count: waiting })}</p>}
    </div>
  );
}

function Repair({ name, done, total }: { name: string; done: number; total: number }) {
  const { t } = useTranslation();
  const format = useFormat();
  const left = useLeft(done, total);
  const share = total > 0 ? done / total : 0;
  return (
    <div className={classes.repair}>
      <div>
        <b title={name}>{name}</b>
        <span>
          {format.bytes(done)} / {format.bytes(total)}
          {left !== undefined && ` · ${t('repair.left', { time: format.duration(left) })}`}
        </span>
      </div>
      <Progress value={share * 100} size="sm" animated aria-label={name} />
    </div>
  );
}

/** Seconds left, from how fast it went while this was on screen. */
function useLeft(done: number, total: number): number | undefined {
  const [readings, setReadings] = useState<Reading[]>([]);
  useEffect(() => {
    const at = Date.now();
    // eslint-disable-next-line react-hooks/set-state-in-effect -- a reading is an event
    setReadings((old) => [...old.slice(-9), { at, done }]);
  }, [done]);
  return secondsLeft(readings, total);
}
