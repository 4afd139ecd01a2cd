/**
 * Lets every rank go on until it needs what is not there yet, round after round until none moves.
 *
 * Times follow from dependencies alone, so who is asked first changes nothing.
 *
 * @param advance  takes the rank's next step and says so; false if it has to wait or is done
 */
export function advanceRanks(ranks: number, advance: (rank: number) => boolean): void {
  let isMoving = true;
  while (isMoving) {
    isMoving = false;
    for (let rank = 0; rank < ranks; rank++) {
      while (advance(rank)) isMoving = true;
    }
  }
}
