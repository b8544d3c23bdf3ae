import java.util.ArrayDeque;
import java.util.HashMap;
import java.util.Map;
import java.util.zip.CRC32;
import java.util.zip.Deflater;
import java.util.zip.Inflater;

/* Work for the JVM that leans on its handler of SIGSEGV: null pointers and the end of a
 * stack are found by guard pages, safepoints by a page that is closed. Beside it a
 * collector, threads, and memory outside its heap. */
final class Work {
    private static final class Box {
        int value;
    }

    private static int nullPointers(int n) {
        int caught = 0;
        Box box = new Box();
        for (int i = 0; i < n; i++) {
            Box any = i % 3 == 0 ? null : box;
            try {
                any.value = i;
            } catch (NullPointerException e) {
                caught++;
            }
        }
        return caught;
    }

    private static int descend(int depth) {
        return descend(depth + 1) + 1;
    }

    private static boolean stackEnds() {
        try {
            return descend(0) < 0;
        } catch (StackOverflowError e) {
            return true;
        }
    }

    private static int collect(int n) {
        ArrayDeque<byte[]> live = new ArrayDeque<>();
        for (int i = 0; i < n; i++) {
            live.add(new byte[20000]);
            if (live.size() > 500) {
                live.remove();
            }
        }
        System.gc();
        return live.size();
    }

    private static long threads(int n) throws InterruptedException {
        Thread[] threads = new Thread[4];
        long[] sums = new long[threads.length];
        for (int t = 0; t < threads.length; t++) {
            int self = t;
            threads[t] = new Thread(() -> {
                Map<Integer, String> map = new HashMap<>();
                for (int i = 0; i < n; i++) {
                    map.put(i % 1000, "value " + i);
                    sums[self] += map.size();
                }
            });
            threads[t].start();
        }
        long sum = 0;
        for (int t = 0; t < threads.length; t++) {
            threads[t].join();
            sum += sums[t];
        }
        return sum;
    }

    private static long compress(int n) throws Exception {
        CRC32 sum = new CRC32();
        byte[] text = new byte[50000], packed = new byte[60000], again = new byte[text.length];
        for (int i = 0; i < n; i++) {
            for (int at = 0; at < text.length; at++) {
                text[at] = (byte) (at * i % 61);
            }
            Deflater deflater = new Deflater();
            deflater.setInput(text);
            deflater.finish();
            int length = deflater.deflate(packed);
            deflater.end();
            Inflater inflater = new Inflater();
            inflater.setInput(packed, 0, length);
            int out = inflater.inflate(again);
            inflater.end();
            sum.update(again, 0, out);
        }
        return sum.getValue();
    }

    public static void main(String[] arguments) throws Exception {
        int scale = Integer.parseInt(arguments[0]);
        System.out.println("null pointers " + nullPointers(300000 * scale));
        System.out.println("stack ends " + stackEnds());
        System.out.println("live " + collect(3000 * scale));
        System.out.println("threads " + threads(100000 * scale));
        System.out.println("compressed " + compress(100 * scale));
    }
}
