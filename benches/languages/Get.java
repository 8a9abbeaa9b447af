// Nanoseconds for a variable, a clock and a cached token: see run.py.
import java.util.Map;
import java.util.function.LongSupplier;

public final class Get {
    private static String variable;

    /** The least of several repetitions: the first ones are interpreted. */
    static double nanoseconds(int times, LongSupplier work) {
        double least = Double.MAX_VALUE;
        for (int repeat = 0; repeat < 5; repeat++) {
            long start = System.nanoTime(), used = 0;
            for (int i = 0; i < times; i++) used += work.getAsLong();
            if (used == 0) throw new IllegalStateException();
            least = Math.min(least, (System.nanoTime() - start) / (double) times);
        }
        return least;
    }

    public static void main(String[] arguments) {
        AmpToken cache = new AmpToken(Map.of());
        variable = cache.token();
        double read = nanoseconds(1_000_000, () -> variable.length());
        double clock = nanoseconds(1_000_000, System::nanoTime);
        double get = nanoseconds(100_000, () -> cache.token().length());
        System.out.printf("%.1f %.1f %.1f%n", read, clock, get);
    }
}
