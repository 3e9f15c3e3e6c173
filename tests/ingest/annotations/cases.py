"""One case per format: an example file, the options it needs, and a broken row for it with the place the error names."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


@dataclass(frozen=True)
class Case:
    """`options` that are paths are relative to the examples; `broken` is appended to `file`, or replaces all of it."""

    format: str
    file: str
    broken: str
    error: str
    options: dict[str, str] = field(default_factory=dict)
    replace: bool = False
    broken_file: str = ""

    @property
    def name(self) -> str:
        return f"{self.format}: {Path(self.file).name}"

    def path(self, root: Path = EXAMPLES) -> Path:
        return root / self.file

    def settings(self, root: Path = EXAMPLES) -> dict[str, object]:
        return {name: root / value if "/" in value else value for name, value in self.options.items()}


UCF, HMDB, K = "ucf101/ucfTrainTestlist", "hmdb51/testTrainMulti_7030_splits", "kinetics"
MIT, SS1, SS2, G = (
    "moments_in_time",
    "something_v1/something-something-v1",
    "something_v2/something-something-v2",
    "generic",
)
SS2_LABELS = {"class_list": f"{SS2}-labels_excerpt.json"}
FCVID_LABELS = {"labels": "fcvid/materials/FCVID_Label_5cols_instead_of_239.txt"}
OFFSET_LINE = "some/long-video-1 x 163 3\n"

CASES = [
    Case("kinetics", f"{K}/k400_train_cvdf.csv", "abseiling,AbCdEfGhIjK,x,105,train,0\n", "line 7: 'x' is not a time"),
    Case("kinetics", f"{K}/k400_test_old_nolabel.csv", "ZzYyXxWwVv0,84\n", "line 4: 2 fields where the header has 4"),
    Case("kinetics", f"{K}/k600_val_deepmind.csv", ",3nVeNtEdIdE,1,2,validate\n", "line 4: the label is empty"),
    Case("kinetics", f"{K}/k700_val_deepmind.csv", "zumba,,1,2,validate\n", "line 6: the video_id is empty"),
    Case("kinetics-csv", f"{K}/k700_val_deepmind.csv", "zumba,x,1,nan,validate\n", "line 6: 'nan' is not a time"),
    Case("kinetics-json", f"{K}/k700_train_deepmind.json",
         '{"a": {"annotations": {"label": "zumba", "segment": [1]}, "subset": "train"}}',
         r"key 'a': the segment is \[1\], expected \[start, end\]", replace=True),
    Case("mini-kinetics", "mini_kinetics_200/arnet_mini_val.txt", "\nimages/val/yoga/x;many;199\n",
         "line 4: 'many' is not a number of frames"),
    Case("mini-kinetics", "mini_kinetics_200/arnet_mini_val_videofolder.txt", "\nimages/val/yoga/x 300 -1\n",
         "line 4: the class id is -1, it cannot be negative"),
    Case("mini-kinetics", "mini_kinetics_200/reskd_minik_val_videofolder.txt", "x.mp4 yoga\n",
         "line 3: 'yoga' is not a class id"),
    Case("mini-kinetics-ids", "mini_kinetics_200/xie_train_ytid_list.txt", "a b\n", "line 4: 'a b' is no YouTube id"),
    Case("moments-in-time", f"{MIT}/v1/trainingSet.csv", "x/y.mp4,x,1,0\n", "line 4: the class 'x' is not in",
         {"class_list": f"{MIT}/v1_with_all_names.txt"}),
    Case("moments-in-time", f"{MIT}/v1/validationSet.csv", "dropping/y.mp4,dropping,1\n", "line 2: 3 fields, expected"),
    Case("moments-in-time", f"{MIT}/v2/trainingSet.csv", "dropping/y.mp4,dropping,1,no\n", "line 2: 'no' is not a number"),
    Case("multi-moments", f"{MIT}/mmit_trainingSet.csv", "x.mp4,1,b\n", "line 3: 'b' is not a class id"),
    Case("hacs-clips", "hacs/HACS_clips_v1.1.1.csv", "Archery,x,training,1,3,0\n", "line 6: the label is '0', expected 1"),
    Case("hacs-segments", "hacs/HACS_segments_v1.1.1.json",
         '{"database": {"x": {"annotations": [], "subset": "training", "duration": "long"}}}',
         "key 'x': 'long' is not a duration in seconds", replace=True),
    Case("ucf101", UCF, "YoYo/v_YoYo_g01_c01.avi 100\n", "line 5: the id is 100, in classInd.txt YoYo is 101",
         broken_file=f"{UCF}/trainlist01.txt"),
    Case("ucf101", f"{UCF}/testlist01.txt", "Yo/v_YoYo_g01_c01.avi\n", "line 3: the class 'Yo' is not in classInd.txt"),
    Case("hmdb51", HMDB, "x.avi 3\n", "line 4: 'x.avi 3' is not", broken_file=f"{HMDB}/brush_hair_test_split1.txt"),
    Case("diving48", "diving48/Diving48_V2_train.json",
         '[{"vid_name": "x", "label": 1, "start_frame": 0, "end_frame": 9}, {"vid_name": "y", "label": "2"}]',
         "item 2: 'label' is '2', expected int", replace=True),
    Case("diving48", "diving48/Diving48_V2_test.json",
         '[{"vid_name": "x", "label": 48, "start_frame": 0, "end_frame": 9}]',
         "item 1: the label is 48, the classes go from 0 to 47", replace=True),
    Case("something-v1", f"{SS1}-train.csv", "7;Doing something\n", "line 4: the class 'Doing something' is not in"),
    Case("something-v1", f"{SS1}-validation.csv", "seven;Holding something\n", "line 2: 'seven' is not a video id"),
    Case("something-v1", f"{SS1}-test.csv", "x\n", "line 3: 'x' is not a video id"),
    Case("something-v2", f"{SS2}-train.json", '[{"id": "1", "template": "Doing [something]"}]',
         "item 1: the class 'Doing something' is not in", SS2_LABELS, replace=True),
    Case("something-v2", f"{SS2}-test.json", '[{"id": "1"}, {"id": 2}]', "item 2: 'id' is 2, expected str", SS2_LABELS,
         replace=True),
    Case("activitynet", "activitynet/activity_net.v1-3.min.json",
         '{"database": {"x": {"annotations": [{"segment": [1, "b"], "label": "Zumba"}], "subset": "training"}}}',
         "key 'x': 'b' is not a time in seconds", replace=True),
    Case("activitynet", "activitynet/activity_net.v1-2.min.json", '{"database": {"x": {"subset": "training"}}}',
         "key 'x': no 'annotations' among 'subset'", replace=True),
    Case("activitynet", "activitynet/anet_anno_action_bsn.json", '{"v_x": {"annotations": [{"label": "Zumba"}]}}',
         "key 'v_x': no 'segment' among 'label'", replace=True),
    Case("fcvid", "fcvid/materials", "1 0 0 0 0\n0 2 0 0 1\n", "line 2: not 5 fields of 0 and 1", FCVID_LABELS,
         replace=True, broken_file=FCVID_LABELS["labels"]),
    Case("thumos14", "thumos14/annotation_val", "video_validation_0000901  2.0\n", "line 2: .* is not `video  start end`",
         broken_file="thumos14/annotation_val/CliffDiving_val.txt"),
    Case("thumos14", "thumos14/csv_form/val_Annotation.csv", "v,Jump,7,2.0,4.5,60.0,135.0\n",
         "line 9: 'Jump' is none of the 20 classes"),
    Case("tvseries", "tvseries", "24_ep1\tDance\t4.1\t5.0" + "\t0" * 12 + "\n", "line 4: 'Dance' is none of the 30",
         broken_file="tvseries/GT-train.txt"),
    Case("tvseries", "tvseries/GT-test.txt", "24_ep1\tEat\t4.1\n", "line 2: 3 fields between tabs, expected 16 or 17"),
    Case("hdd", "hdd/EAF/2017-01-01-10-17-30.eaf", "<broken", "line 1[0-9a-z ]*: no valid xml", replace=True),
    Case("imagenet", "imagenet1k/LOC_val_solution_invented.csv", "ILSVRC2012_val_00000003,490\n",
         "line 4: .* is not `<image id>,<wnid>"),
    Case("charades", "charades/Charades_v1_train.csv", "X,Y,Z,6,7,Yes,a,b,c,c157 1 2,9\n",
         "line 4: the action 'c157 1 2' is not `c000 start end`"),
    Case("frame-labels", "charades/slowfast_frame_list_train.csv", 'DE3F4 1 2 DE3F4/DE3F4-000003.jpg ""\n',
         "line 5: frame 2 of DE3F4 where 1 is next"),
    Case("frame-labels", "something_v2/slowfast_frame_list.csv", "900004 1 1 900004/2.jpg 7\n", "line 5: the labels are 7"),
    Case("labels-csv", f"{G}/srtg/labels/ucf101_split1_train.csv", "YoYo,,train\n", "line 3: the video_id is empty"),
    Case("srtg-csv", f"{G}/srtg/labels/kinetics-400_train.csv", "zumba,x,1,2,train\n",
         "line 5: the class 'zumba' is not in ids of kinetics-400_dictionary.json"),
    Case("srtg-csv", f"{G}/srtg/labels/ucf101_split1_train.csv", "YoYo\n", "line 3: 1 fields where the header has 3"),
    Case("manifest", f"{G}/manifest.jsonl", '{"id": "x", "path": "x.mp4", "labels": ["a"]}\n', "line 5: the label 'a' is no"),
    Case("manifest", f"{G}/manifest.csv", "x,x.mp4,val,a,,\n", "line 4: 'a' is not a class id"),
    Case("video-list", f"{G}/mmaction_videos.txt", "some/path/002.mp4 two\n", "line 3: 'two' is not a class id"),
    Case("slowfast", f"{G}/slowfast_kinetics.csv", "1\n", "line 3: '1' names no video"),
    Case("slowfast", f"{G}/slowfast_kinetics_TRAP_space_in_path.csv", "a.mp4 x\n", "line 2: 'x' is not a class id"),
    Case("video-list-multilabel", f"{G}/mmaction_videos_multilabel.txt", "a.mp4 1 x 5\n", "line 3: 'x' is not a class id"),
    Case("frame-list", f"{G}/mmaction_rawframes.txt", "some/directory-3 x 1 a\n", "line 3: .* is not `dir total_frames label`"),
    Case("frame-list", "something_v1/tsm_train_videofolder.txt", "\nsomething/v1/img/1 42 label\n", "line 4: "),
    Case("frame-list", f"{K}/sbp_k400_val.txt", "x.mp4 300 -1\n", "line 4: "),
    Case("frame-list-offset", f"{G}/mmaction_rawframes_with_offset.txt", OFFSET_LINE, "line 3: .* `dir offset total_frames"),
    Case("frame-list-multilabel", f"{G}/mmaction_rawframes_multilabel.txt", "d 2 a\n", "line 3: .* is not `dir total_frames"),
    Case("frame-list-multilabel", "activitynet/reskd_actnet_png_img_val_split.txt", "d x\n", "line 3: "),
    Case("frame-list-nolabel", f"{G}/mmaction_rawframes_nolabel.txt", "d\n", "line 2: 'd' is not `dir total_frames`"),
    Case("arnet", "activitynet/arnet_actnet_val_split.txt", "v_x,12,a\n", "line 3: .* is not `dir total_frames"),
    Case("arnet", "fcvid/arnet_fcvid_val_split.txt", "v_x\n", "line 2: "),
    Case("mmaction-json", f"{G}/mmaction_rawframes.json", '[{"frame_dir": "d", "label": [1]}]',
         "item 1: no 'total_frames' among", replace=True),
    Case("mmaction-json", f"{G}/mmaction_videos.json", '[{"filename": "a.mp4", "label": ["x"]}]',
         r"item 1: 'label' is \['x'\]", replace=True),
]  # fmt: skip
"""Formats without text to break (class-folders, hdd-targets) have tests of their own."""
